"""DRIVER. The launcher for debugging: one rank in this very process, no Spark, no Horovod, no sockets."""

from __future__ import annotations

import signal
import traceback
from typing import Any

from pipeline.errors import PipelineError, RankFailedError
from pipeline.launch.environment import stop_on_signals
from pipeline.launch.rank import Body, resolve
from pipeline.task import Reporter


def run_in_process(body: Body | str, task: Any, reporter: Reporter) -> Any:
    """Run the body as the only rank.

    Raises:
        RankFailedError: the user's code failed; errors of this package keep their kind.
    """
    from pipeline.training.collective import SoloCollective

    with stop_on_signals(signal.SIGTERM) as stop:
        try:
            return resolve(body)(task, SoloCollective(), reporter, stop)
        except PipelineError:
            raise
        except Exception as error:
            raise RankFailedError(
                f"rank 0 failed: {type(error).__name__}: {error}; expected it to go on; see its traceback below",
                detail=traceback.format_exc(),
            ) from error
