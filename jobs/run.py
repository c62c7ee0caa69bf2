"""DRIVER. spark-submit entry point: the whole flow, from raw tables to a registered model.

    spark-submit --master MASTER jobs/run.py CONFIG [--set section.key=value ...]

The master given to spark-submit wins over the configuration's. Arguments, RESULT line and exit codes are those of
`pipeline run`.
"""

import sys

from pipeline.cli import main

if __name__ == "__main__" and (code := main(["run", *sys.argv[1:]])):
    sys.exit(code)  # only on failure: notebook jobs take any SystemExit for an error
