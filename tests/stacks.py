"""What of the two stacks there is here, as parameters of tests: a promise holds on each of them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

HAS_HOROVOD = find_spec("horovod") is not None
HAS_PETASTORM = find_spec("petastorm") is not None

needs_horovod = pytest.mark.skipif(not HAS_HOROVOD, reason="Horovod is not installed")
needs_petastorm = pytest.mark.skipif(not HAS_PETASTORM, reason="Petastorm is not installed")

COLLECTIVES = [pytest.param("horovod", marks=needs_horovod), "torch"]
# The same ranks where they exchange through the memory of their host, which is what they do where they can.
IN_MEMORY = [pytest.param("horovod in memory", marks=needs_horovod), "torch in memory"]
READERS = [pytest.param("petastorm", marks=needs_petastorm), "pyarrow"]
DEFAULT_COLLECTIVE = "horovod" if HAS_HOROVOD else "torch"
