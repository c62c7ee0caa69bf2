"""DRIVER. Starts ranks on a Spark cluster, watches them, and brings their results and errors home.

    session     the Spark session, ours or the one that is there
    launch      check the cluster, run an attempt, give the result
    attempt     start ranks with a launcher (barrier), listen on the channel, judge with the watch
    record      status.json, metrics.jsonl, listeners

Elsewhere run `rank`, with `reporter`, `output`, `environment` and `timeline`, inside the Spark tasks; before them, on
executors, `python_daemon` and `probe`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.launch.launch import launch_training as launch_training

__all__ = ["launch_training"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pipeline.launch.launch import launch_training

        return launch_training
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
