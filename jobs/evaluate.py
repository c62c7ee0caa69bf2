"""DRIVER. spark-submit entry point: the test split beside baselines, the quality gate, the MLflow registry, the report.

    spark-submit --master MASTER jobs/evaluate.py CONFIG [--set section.key=value ...]

The master given to spark-submit wins over the configuration's. Arguments, RESULT line and exit codes are those of
`pipeline evaluate`.
"""

import sys

from pipeline.cli import main

if __name__ == "__main__" and (code := main(["evaluate", *sys.argv[1:]])):
    sys.exit(code)  # only on failure: notebook jobs take any SystemExit for an error
