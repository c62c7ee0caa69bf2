"""The second example: images and ten classes, from the table to a registered model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import SHORT_JOBS
from tests.jobs.conftest import REPOSITORY, read_result

DIGITS = REPOSITORY / "examples" / "digits"


def test_images_of_ten_classes_become_a_registered_model(run_command, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(DIGITS / "fetch.py")], check=True)
    settings = {
        "dataset.url": tmp_path / "digits",
        "training.run_url": tmp_path / "runs" / "digits",
        "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        "cluster.spark": json.dumps(SHORT_JOBS),
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    ended = run_command("run", str(DIGITS / "pipeline.yaml"), *overrides)
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = read_result(ended.stdout)
    assert result["rows"] == {"in": 1797, "published": 1797, "duplicates": 0, "rejected": 0}
    assert result["metrics"]["accuracy"] > 0.9
    assert result["model"]["version"] == "1"
    evaluation = json.loads((tmp_path / "runs" / "digits" / "evaluation.json").read_text())
    assert {baseline["name"] for baseline in evaluation["baselines"]} >= {"majority class", "logistic regression"}
