"""RANK. What runs inside a Spark task: find the other ranks, train, report, and leave the process as it was.

Spark reuses its Python workers, so environment, signal handlers and the collective's state end with the block.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
from pyspark import BarrierTaskContext

from pipeline.config.training import CollectiveName
from pipeline.errors import LostPeersError
from pipeline.launch.channel import ChannelAddress
from pipeline.launch.environment import environment, stop_on_signals
from pipeline.launch.output import output_sent
from pipeline.launch.reporter import ChannelReporter
from pipeline.launch.resources import Place, places
from pipeline.launch.timeline import timeline_variables

if TYPE_CHECKING:
    from pipeline.training.collective import Collective

Body = Callable[..., Any]
TRAIN = "pipeline.training.worker:train"

logger = logging.getLogger(__name__)

_ORPHAN_SECONDS = 15.0
_NOWHERE = ChannelAddress("", 0, "")


@dataclass(frozen=True)
class RankCall:
    """What a rank is told to do: ``body(task, collective, reporter, stop)``.

    Attributes:
        body: the function, or ``module:name`` of one that only ranks import.
        collective: what the ranks use together.
        collective_seconds: after which it gives up a rank that does not answer.
        channel: where to report; filled in by the attempt.
        rendezvous: host and port where ranks find each other; filled in by the launcher.
        variables: further environment variables.
        timeline: url of the file that Horovod writes its timeline to; None for no timeline.
        shared_memory: whether ranks of one host exchange through its memory.
    """

    body: Body | str
    task: Any
    collective: CollectiveName
    collective_seconds: float
    channel: ChannelAddress = _NOWHERE
    rendezvous: tuple[str, int] = ("", 0)
    variables: Mapping[str, str] = field(default_factory=dict)
    timeline: str | None = None
    shared_memory: bool = True


def barrier_task(call: RankCall) -> Iterator[tuple[int, Any]]:
    """The body of a Spark barrier task: this rank's number and result."""
    context = BarrierTaskContext.get()
    hosts = [info.address.rsplit(":", 1)[0] for info in context.getTaskInfos()]
    task = context.partitionId()
    place = places(hosts)[task]
    gpus = context.resources().get("gpu")
    if gpus is not None:
        call = replace(call, variables={**call.variables, "CUDA_VISIBLE_DEVICES": ",".join(gpus.addresses)})
    yield place.rank, run_rank(call, place, hosts[task])


def run_rank(call: RankCall, place: Place, host: str) -> Any:
    """Join the other ranks as this place says, if there are any, and run the body."""
    if place.world_size == 1:
        with environment(call.variables):
            return _run(call, place.rank, _alone)
    if call.collective == "horovod":
        with environment({**horovod_environment(place, host, call.rendezvous), **call.variables}):
            return _run_over_horovod(call, place.rank)
    with environment({**_torch_environment(host), **call.variables}):
        return _run(call, place.rank, partial(_join_torch, call, place))


def run_started_rank(call: RankCall) -> Any:
    """Join the other ranks as Horovod's own launcher says in the environment, and run the body."""
    return _run_over_horovod(call, int(os.environ["HOROVOD_RANK"]))


def _run_over_horovod(call: RankCall, rank: int) -> Any:
    with timeline_variables(call.timeline) as variables, environment(variables):
        return _run(call, rank, _join_horovod)


def _run(call: RankCall, rank: int, join: Callable[[], Collective]) -> Any:
    """The collective starts first and data is touched after, since all ranks wait for the slowest one there."""
    with (
        stop_on_signals(signal.SIGTERM, signal.SIGHUP) as signalled,
        _ended_with_parent(),
        ChannelReporter(call.channel, rank) as reporter,
        output_sent(reporter.log),
        _failures_told(reporter),
        contextlib.closing(_nearest(call, join())) as collective,
        _failures_told(reporter),  # before the others notice, for whose end Spark would kill this process
    ):
        reporter.started()
        if collective.shares_memory and rank == 0:
            logger.info("train: all ranks are on one host and exchange through its memory")
        return resolve(call.body)(call.task, collective, reporter, lambda: signalled() or reporter.stopped)


@contextlib.contextmanager
def _failures_told(reporter: ChannelReporter) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        reporter.failure(error)
        raise


def _nearest(call: RankCall, collective: Collective) -> Collective:
    """Over memory where that is wanted and can be; tensors of GPUs, and what a timeline shows, are not for it."""
    import torch

    from pipeline.training.shared_memory import share_memory

    if not call.shared_memory or call.timeline is not None:
        return collective
    if any(collective.gather_objects(torch.cuda.is_available())):
        return collective
    return share_memory(collective, call.collective_seconds)


def _alone() -> Collective:
    """A single rank has nobody to wait for, not even for the next cycle of Horovod's thread."""
    from pipeline.training.collective import SoloCollective

    return SoloCollective()


def _join_horovod() -> Collective:
    from pipeline.training.collective import HorovodCollective

    try:
        return HorovodCollective()
    except ValueError as error:  # all that Horovod says if a rank is gone before they have found each other
        raise LostPeersError(
            f"Horovod has not brought the ranks together ({error}); expected all to live and to reach each other; "
            "run the same command again to resume"
        ) from error


def _join_torch(call: RankCall, place: Place) -> Collective:
    from pipeline.training.torch_collective import TorchCollective

    return TorchCollective(
        place.rank, place.world_size, place.local_rank, call.rendezvous, timeout_seconds=call.collective_seconds
    )


def resolve(body: Body | str) -> Body:
    """The function behind ``module:name``."""
    if callable(body):
        return body
    module, _, name = body.partition(":")
    function: Body = getattr(importlib.import_module(module), name)
    return function


def horovod_environment(place: Place, host: str, rendezvous: tuple[str, int]) -> dict[str, str]:
    """What Horovod reads at its start, as its own launchers set it (horovod/runner/gloo_run.py)."""
    variables = {
        "HOROVOD_RANK": place.rank,
        "HOROVOD_SIZE": place.world_size,
        "HOROVOD_LOCAL_RANK": place.local_rank,
        "HOROVOD_LOCAL_SIZE": place.local_size,
        "HOROVOD_CROSS_RANK": place.cross_rank,
        "HOROVOD_CROSS_SIZE": place.cross_size,
        "HOROVOD_HOSTNAME": host,
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": rendezvous[0],
        "HOROVOD_GLOO_RENDEZVOUS_PORT": rendezvous[1],
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }
    interface = interface_of(host)
    if interface is not None:
        variables["HOROVOD_GLOO_IFACE"] = interface
    return {name: str(value) for name, value in variables.items()}


def _torch_environment(host: str) -> dict[str, str]:
    """Which interface Gloo and NCCL use between ranks."""
    interface = interface_of(host)
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface is not None else {}


def interface_of(host: str) -> str | None:
    """The network interface that holds the address by which Spark knows this executor.

    Without it, Gloo listens wherever the machine's name resolves to.
    """
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in addresses):
            return str(name)
    return None


@contextlib.contextmanager
def _ended_with_parent() -> Iterator[None]:
    """End this process when Spark's executor is gone, after some seconds to save a checkpoint."""
    parent = os.getppid()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            if os.getppid() != parent:
                if not over.wait(_ORPHAN_SECONDS):
                    os._exit(75)
                return

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
