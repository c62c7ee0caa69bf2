"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest


@pytest.fixture(params=["path", "file-url", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder as users may name one: here, or in another filesystem."""
    if request.param == "memory":
        yield "memory://bucket"
        fsspec.filesystem("memory").store.clear()
    else:
        yield str(tmp_path) if request.param == "path" else tmp_path.as_uri()
