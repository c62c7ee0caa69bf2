"""RANK. A trace of some steps by torch's profiler, to be opened in a browser (Perfetto, chrome://tracing)."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator

from pipeline import storage
from pipeline.models.compiler import compiler_cache_not_kept
from pipeline.training.step import Learner

_WARM_UP_STEPS = 2


@contextlib.contextmanager
def profiled(learner: Learner) -> Iterator[Callable[[], None]]:
    """A function to be called after every step; does nothing unless ``training.profile_steps`` is set.

    The trace of the first steps of each epoch goes to ``<run>/profile/rank-<r>.json``.
    """
    steps = learner.config.profile_steps
    if not steps:
        yield lambda: None
        return
    import torch.profiler as torch_profiler

    with compiler_cache_not_kept():
        importlib.import_module("torch._inductor.config")  # the profiler does, wherever it starts

    url = storage.join(learner.config.run_url, "profile", f"rank-{learner.collective.rank}.json")

    def export(profile: torch_profiler.profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "trace.json")
            profile.export_chrome_trace(path)
            storage.write_bytes(url, storage.read_bytes(path))

    schedule = torch_profiler.schedule(wait=0, warmup=_WARM_UP_STEPS, active=steps, repeat=1)
    with torch_profiler.profile(schedule=schedule, on_trace_ready=export) as profile:
        yield profile.step
