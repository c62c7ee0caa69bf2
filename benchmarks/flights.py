"""Which days are held out decides what any model can reach: the flights example over several choices of days.

    python -m benchmarks.flights [--salts 10] [--folder DIR]

Each salt of the split is a whole run of `examples/flights/pipeline.yaml`: prepared, trained and evaluated anew, beside
the baselines on the very same rows. Runs that the folder has already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results_file import document, keep, table

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "flights" / "pipeline.yaml"
TREES, LINEAR = "gradient-boosted trees", "logistic regression"
CONTENDERS = ("model", TREES, LINEAR)


def run(salt: str, folder: Path) -> dict[str, float]:
    """Test ROC AUC of each contender with the days that this salt holds out."""
    overrides = {
        "split.salt": salt,
        "dataset.url": folder / salt / "dataset",
        "training.run_url": folder / salt / "run",
        "tracking.uri": f"sqlite:///{folder / salt / 'mlflow.db'}",
    }
    settings = [word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(str(value))}")]
    subprocess.run([sys.executable, "-m", "pipeline.cli", "run", CONFIG, "--quiet", *settings], cwd=ROOT, check=True)
    evaluation = json.loads((folder / salt / "run" / "evaluation.json").read_text())
    measured = [evaluation["measured"], *evaluation["baselines"]]
    return {each["name"]: each["metrics"]["roc_auc"] for each in measured if each["name"] in CONTENDERS}


def page(sections: Mapping[str, Any]) -> list[str]:
    """A line per salt, then the mean, with the lead over the trees and over the linear model."""
    results: Mapping[str, Mapping[str, float]] = sections["roc_auc"]
    ordered = sorted(results.items(), key=lambda item: item[1][TREES])
    mean = {name: statistics.fmean(auc[name] for auc in results.values()) for name in CONTENDERS}
    head = ["salt", *CONTENDERS, "lead over trees", "lead over logistic regression"]
    lines = table(head, [_row(salt, auc) for salt, auc in [*ordered, ("**mean**", mean)]])
    leads = " and ".join(f"{mean['model'] - mean[peer]:+.3f} from {peer}" for peer in (TREES, LINEAR))
    said = f"In the mean over {len(results)} choices of days the model is {leads}."
    return document("The flights example with other days held out", "ROC AUC of the test days.", [], [said, "", *lines])


def _row(name: str, auc: Mapping[str, float]) -> list[str]:
    values = [f"{auc[contender]:.4f}" for contender in CONTENDERS]
    return [name, *values, *(f"{auc['model'] - auc[peer]:+.4f}" for peer in (TREES, LINEAR))]


def main() -> None:
    """Run, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salts", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=ROOT / "workspace" / "benchmarks" / "flights")
    options = parser.parse_args()
    results = {}
    for salt in (f"days-{number}" for number in range(options.salts)):
        results[salt] = run(salt, options.folder)
        print(salt, {name: round(auc, 4) for name, auc in results[salt].items()}, flush=True)
    keep("flights", {"roc_auc": results}, page)


if __name__ == "__main__":
    main()
