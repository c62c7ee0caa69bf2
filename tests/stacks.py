"""What of the two stacks there is here, as parameters of tests: a promise holds on each of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

HAS_HOROVOD = find_spec("horovod") is not None
HAS_PETASTORM = find_spec("petastorm") is not None

needs_horovod = pytest.mark.skipif(not HAS_HOROVOD, reason="Horovod is not installed")
needs_petastorm = pytest.mark.skipif(not HAS_PETASTORM, reason="Petastorm is not installed")

COLLECTIVES = [pytest.param("horovod", marks=needs_horovod), "torch"]
READERS = [pytest.param("petastorm", marks=needs_petastorm), "pyarrow"]
DEFAULT_COLLECTIVE = "horovod" if HAS_HOROVOD else "torch"
# How ranks of one host exchange: over a collective, or as they do by default, through memory once it has brought
# them together.
_SUFFIX = " in memory"
IN_MEMORY = f"{DEFAULT_COLLECTIVE}{_SUFFIX}"
EXCHANGES = [*COLLECTIVES, IN_MEMORY]


def exchange_settings(exchange: str) -> dict[str, Any]:
    """The settings of `cluster` with which ranks exchange like that."""
    collective = exchange.removesuffix(_SUFFIX)
    return {"collective": collective, "shared_memory": collective != exchange}
