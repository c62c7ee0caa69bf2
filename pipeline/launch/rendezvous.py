"""DRIVER. Where ranks find each other: Horovod's rendezvous server, or the store of torch.distributed.

Both listen on one address, store small byte strings for the length of an attempt, and interpret none.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from pipeline.config.training import CollectiveName
from pipeline.launch.listening import listening_on

_LONGEST_VALUE = 1 << 16


@contextlib.contextmanager
def rendezvous(collective: CollectiveName, bind: str) -> Iterator[int]:
    """The meeting point of the ranks of one attempt; its port.

    Args:
        collective: what the ranks will use.
        bind: address of this machine to listen on.

    Raises:
        ServiceError: the address is not one of this machine.
    """
    with _torch_store(bind) if collective == "torch" else _horovod_server(bind) as port:
        yield port


@contextlib.contextmanager
def _torch_store(bind: str) -> Iterator[int]:
    """`torch.distributed.TCPStore`, which would listen on every interface if it opened the port itself."""
    import torch.distributed as dist

    with listening_on(bind):
        listener = socket.create_server((bind, 0))
    port = int(listener.getsockname()[1])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        bind, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    try:
        yield port
    finally:
        del store  # ends its thread, and closes the port


@contextlib.contextmanager
def _horovod_server(bind: str) -> Iterator[int]:
    """Horovod's rendezvous server.

    `horovod.runner.http.http_server.RendezvousServer` itself listens on all interfaces (CVE-2024-10190 was about
    its elastic sibling), so its parts are put together here: the same HTTP server and handler on the address
    that the ranks use.
    """
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class SmallValues(RendezvousHandler):  # type: ignore[misc]
        def do_PUT(self) -> None:
            if int(self.headers.get("Content-Length", _LONGEST_VALUE + 1)) > _LONGEST_VALUE:
                self.send_status_code(413)
            else:
                super().do_PUT()

    with listening_on(bind):
        server = RendezvousHTTPServer((bind, 0), SmallValues, False)
    server.daemon_threads = True
    server.init([])
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="rendezvous", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
