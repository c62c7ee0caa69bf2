"""DRIVER. Listening on the driver's address, by which ranks report and find each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline.errors import ServiceError


@contextlib.contextmanager
def listening_on(bind: str) -> Iterator[None]:
    """Say what is wrong with an address that the block cannot listen on.

    Raises:
        ServiceError: the address is not one of this machine.
    """
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"the driver's address {bind} cannot be listened on: {error.strerror}; expected an address of this "
            "machine; set spark.driver.bindAddress and spark.driver.host"
        ) from error
