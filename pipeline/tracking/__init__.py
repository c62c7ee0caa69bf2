"""DRIVER. MLflow: runs, metrics and the model registry. The only package that imports it.

Tracking never hurts: what happens to MLflow while training costs a warning, never a step. Only registering and
loading registered models, which are nothing without MLflow, fail when it is not there.
"""

from __future__ import annotations

from pipeline.tracking.registry import load_registered, register_model
from pipeline.tracking.store import Store, tracking_uri
from pipeline.tracking.tracker import Tracker, log_results

__all__ = ["Store", "Tracker", "load_registered", "log_results", "register_model", "tracking_uri"]
