"""RANK. Patience with storages that lie elsewhere.

Credentials come from the environment, as the filesystem's own package reads them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline import storage
from pipeline.errors import StorageError

ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.2
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_CLIENTS = {"aiohttp", "azure", "botocore", "google", "gcsfs", "requests", "urllib3"}
"""Packages whose errors are about the network, though not all of them are `OSError`."""

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def with_retries(url: str, operation: Callable[[], Result]) -> Result:
    """Do something with a storage that may fail for a moment: several attempts, each after twice the delay.

    Raises:
        StorageError: it failed every time, or in a way that another attempt cannot mend.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with storage.storage_errors(url):
                return operation()
        except Exception as error:
            if not is_transient(error) or storage.is_local(url):
                raise
            if attempt == ATTEMPTS:
                raise StorageError(
                    f"{url} could not be read: {_reason(error)}; expected an answer within {ATTEMPTS} attempts; "
                    "check the storage and run the same command again"
                ) from error
            delay = FIRST_DELAY_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            logger.warning("reading %s failed, next attempt in %.1f s: %s", url, delay, _reason(error))
            time.sleep(delay)
    raise AssertionError("unreachable")


def _reason(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error


def is_transient(error: BaseException | None) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, StorageError):
        return is_transient(error.__cause__)
    if isinstance(error, _FINAL):
        return False
    return isinstance(error, (OSError, TimeoutError)) or type(error).__module__.partition(".")[0] in _CLIENTS
