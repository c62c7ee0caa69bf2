"""ANYWHERE. Torch's compiler, where something of torch imports it though nothing is compiled."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@contextlib.contextmanager
def compiler_cache_not_kept() -> Iterator[None]:
    """Inside, the compiler has its cache in a folder that goes; its mere import makes one, by default in /tmp."""
    before = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_VARIABLE] = folder
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before
