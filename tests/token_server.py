"""A token server that can be away, in each of the ways in which servers are."""

import base64
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Provider:
    """Its tokens live for `token_s`. Away: nobody listens, an error is answered, or nothing is, for `hang_s` at most."""

    def __init__(self, *, token_s: int, hang_s: float) -> None:
        self.token_s = token_s
        self._hang_s = hang_s
        self.given = 0
        self._server: _Server | None = None
        self._back = threading.Event()
        self.port = 0
        self.come()

    def come(self, answer: Callable[["_Handler"], object] | None = None) -> None:
        """Listen, with tokens or with another answer."""
        self._server = _Server(("127.0.0.1", self.port), self, answer or _Handler.give)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def go(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def leave(self, kind: str) -> None:
        """Be away in one of its ways."""
        self.go()
        self._back.clear()
        if kind == "fails":
            self.come(_Handler.fail)
        elif kind == "hangs":
            self.come(lambda _: self._back.wait(self._hang_s))

    def return_(self) -> None:
        """Give tokens again."""
        self._back.set()
        self.go()
        self.come()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], provider: Provider, answer: Callable[["_Handler"], object]
    ) -> None:
        super().__init__(address, _Handler)
        self.provider, self.answer = provider, answer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answer(self)

    def give(self) -> None:
        self.server.provider.given += 1
        now_s, token_s = int(time.time()), self.server.provider.token_s
        parts = ({"alg": "none"}, {"sub": "worker", "iat": now_s, "exp": now_s + token_s})
        token = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
        )
        self._send(200, {"access_token": f"{token}.", "expires_in": token_s, "token_type": "Bearer"})

    def fail(self) -> None:
        self._send(503, {"error": "temporarily_unavailable"})

    def _send(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""
