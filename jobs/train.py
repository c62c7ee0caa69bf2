"""DRIVER. spark-submit entry point: a published dataset to a trained model, one rank per Spark task.

    spark-submit --master MASTER jobs/train.py CONFIG [--set section.key=value ...]

The master given to spark-submit wins over the configuration's. Arguments, RESULT line and exit codes are those of
`pipeline train`.
"""

import sys

from pipeline.cli import main

if __name__ == "__main__" and (code := main(["train", *sys.argv[1:]])):
    sys.exit(code)  # only on failure: notebook jobs take any SystemExit for an error
