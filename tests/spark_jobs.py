"""What Spark is doing, as tests ask for it."""

from __future__ import annotations

import time
from typing import Any


def ends_all_jobs(spark: Any, seconds: float = 20.0) -> bool:
    """Whether no job is active soon: Spark tells whoever waits for a job before it counts it as ended."""
    deadline = time.monotonic() + seconds
    while spark.sparkContext.statusTracker().getActiveJobsIds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
