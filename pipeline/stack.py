"""DRIVER and RANK. Which door is used where there are two: the collective between ranks, the reader of part files.

Neither changes what is computed: a dataset, a checkpoint and a model of one stack are those of the other. Horovod and
Petastorm are the default where they are installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.config.data import ReaderChoice, ReaderName
from pipeline.config.training import ClusterConfig, CollectiveName
from pipeline.errors import ConfigError


def collective_of(cluster: ClusterConfig) -> CollectiveName:
    """The collective that ranks of this cluster use: the named one, or with ``auto`` Horovod where it is installed.

    Raises:
        ConfigError: what is named, or what the launcher needs, is not installed.
    """
    if cluster.launcher == "in_process":
        return "none"
    wanted = "horovod" if cluster.launcher == "horovod" else cluster.collective
    if wanted == "auto" and find_spec("horovod") is None and cluster.horovod_timeline:
        raise ConfigError(
            "cluster.horovod_timeline is true, and Horovod is not installed; expected false with the collective torch; "
            "install Horovod (`make setup` in a checkout), or set cluster.horovod_timeline=false"
        )
    if wanted == "auto":
        return "horovod" if find_spec("horovod") else "torch"
    if wanted == "horovod" and find_spec("horovod") is None:
        key, other = ("launcher", "barrier") if cluster.launcher == "horovod" else ("collective", "auto")
        raise ConfigError(_missing(f"cluster.{key}", wanted, other))
    return wanted


def reader_of(wanted: ReaderChoice) -> ReaderName:
    """The reader of part files: the named one, or with ``auto`` Petastorm where it is installed.

    Raises:
        ConfigError: the named one is not installed.
    """
    if wanted == "auto":
        return "petastorm" if find_spec("petastorm") else "pyarrow"
    if wanted == "petastorm" and find_spec("petastorm") is None:
        raise ConfigError(_missing("dataset.reader", wanted, "auto"))
    return wanted


def _missing(key: str, wanted: str, other: str) -> str:
    cure = f"install it (`make setup` in a checkout), or set {key}={other}"
    return f"{key} is {wanted}, which is not installed; expected what is installed; {cure}"


def chosen_by(wanted: str, name: str) -> str:
    """A name with the way it was chosen, for the log."""
    return f"{name} (auto)" if wanted == "auto" else name
