"""DRIVER. spark-submit entry point: predictions of the registered model for a table of raw rows.

    spark-submit --master MASTER jobs/score.py CONFIG INPUT OUTPUT [--model MODEL] [--set section.key=value ...]

The master given to spark-submit wins over the configuration's. Arguments, RESULT line and exit codes are those of
`pipeline score`.
"""

import sys

from pipeline.cli import main

if __name__ == "__main__" and (code := main(["score", *sys.argv[1:]])):
    sys.exit(code)  # only on failure: notebook jobs take any SystemExit for an error
