"""DRIVER. spark-submit entry point: raw tables to a published dataset.

    spark-submit --master MASTER jobs/prepare.py CONFIG [--set section.key=value ...]

The master given to spark-submit wins over the configuration's. Arguments, RESULT line and exit codes are those of
`pipeline prepare`.
"""

import sys

from pipeline.cli import main

if __name__ == "__main__" and (code := main(["prepare", *sys.argv[1:]])):
    sys.exit(code)  # only on failure: notebook jobs take any SystemExit for an error
