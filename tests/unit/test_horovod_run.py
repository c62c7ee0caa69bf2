"""What horovod.spark.run would leave in the driver, the launcher ends."""

from __future__ import annotations

import threading
import urllib.request

import psutil
import pytest

from pipeline.launch.horovod_run import _mended
from tests.stacks import needs_horovod


def _listens(port: int) -> list[str]:
    connections = psutil.Process().net_connections("tcp")
    return [c.laddr.ip for c in connections if c.laddr.port == port and c.status == psutil.CONN_LISTEN]


@needs_horovod
def test_the_server_where_ranks_find_each_other_listens_on_one_address_and_ends_with_the_run() -> None:
    from horovod.runner.http.http_server import RendezvousServer

    threads = set(threading.enumerate())
    with _mended(threading.Event(), "127.0.0.1"):
        port = RendezvousServer().start()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/scope/key", timeout=10)
        assert _listens(port) == ["127.0.0.1"]
    assert _listens(port) == []
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
