"""ANYWHERE. From a trained model to answers: predictor, evaluation and gate, batch scoring, HTTP serving.

All of them go through `pipeline.inference.predictor.Predictor`, which holds the very features of training.
"""

from __future__ import annotations

from pathlib import Path


def mlflow_entry_path() -> Path:
    """The file that stands for a registered model in MLflow."""
    return Path(__file__).with_name("mlflow_entry.py")
