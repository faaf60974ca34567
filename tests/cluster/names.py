"""The cluster's names for a program that honours HTTPS_PROXY: NAME:PORT is what a table says, as a service's address would be."""

import contextlib
import socket
import socketserver
import threading
from typing import Final

_connect_timeout_s: Final = 3.0
_piece_bytes: Final = 65_536


class Names:
    """A proxy that knows CONNECT alone, on 127.0.0.1; a name that it does not know is a 502, as it would be no address."""

    def __init__(self) -> None:
        self._table: dict[str, int] = {}
        names = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                target = self.rfile.readline().split()[1].decode()
                while self.rfile.readline() not in (b"\r\n", b""):
                    pass
                port = names._table.get(target)
                try:
                    there = socket.create_connection(("127.0.0.1", port or 0), _connect_timeout_s)
                except OSError:
                    self.wfile.write(b"HTTP/1.1 502 nobody there\r\n\r\n")
                    return
                with there:
                    there.settimeout(None)
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(there, self.connection))
                    back.start()
                    _pump(self.connection, there)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=True)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """For a program that is to see the names."""
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self._server.server_address[1]}",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def point(self, name: str, port: int) -> None:
        """NAME:PORT is this port of 127.0.0.1 from now on."""
        self._table[name] = port

    def close(self) -> None:
        """No new connections."""
        self._server.shutdown()
        self._server.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_piece_bytes):
            target.sendall(data)
    except OSError:
        pass
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
