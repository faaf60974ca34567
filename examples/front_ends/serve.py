"""Serves the two pages of this folder, and forwards what they read to an engine, so that to the browser all is one origin.

    python serve.py [--engine http://127.0.0.1:9464] [--port 8080]

For this machine only, and for reading only: of the engine's /api/v1 nothing else is forwarded.
"""

import argparse
import contextlib
import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

folder = Path(__file__).parent
libraries = {
    "/d3.min.js": "node_modules/d3/dist/d3.min.js",
    "/echarts.min.js": "node_modules/echarts/dist/echarts.min.js",
}
files = {
    "/d3.html": "text/html; charset=utf-8",
    "/echarts.html": "text/html; charset=utf-8",
    "/d3_flow.js": "text/javascript; charset=utf-8",
    "/echarts_health.js": "text/javascript; charset=utf-8",
    "/follow.js": "text/javascript; charset=utf-8",
    **dict.fromkeys(libraries, "text/javascript; charset=utf-8"),
}
forwarded = {"/api/v1/flow", "/api/v1/health", "/api/v1/events"}
# What the engine judges a caller by, and where a stream that was cut off goes on.
passed_on = ("Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Last-Event-ID")
timeout_s = 40.0  # an engine sends at least a comment every 15 s


class Handler(BaseHTTPRequestHandler):
    engine = ""
    timeout = timeout_s

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        # The engine sees us as its caller, so that a foreign name for this machine has to be refused here.
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in ("127.0.0.1", "localhost"):
            self.say(403, "ask for 127.0.0.1 or localhost\n")
        elif path in forwarded:
            self.forward()
        elif path in files:
            self.file(path)
        else:
            self.say(404, "here are /d3.html and /echarts.html\n")

    def file(self, path: str) -> None:
        place = folder / libraries.get(path, path[1:])
        if not place.exists():
            self.say(404, f"{place} is missing: npm install --no-save d3@7 echarts@6 in {folder}\n")
            return
        self.say(200, place.read_text(encoding="utf-8"), files[path])

    def forward(self) -> None:
        headers = {name: self.headers[name] for name in passed_on if name in self.headers}
        engine = http.client.HTTPConnection(self.engine, timeout=timeout_s)
        try:
            engine.request("GET", self.path, headers=headers)
            answer = engine.getresponse()
        except (OSError, http.client.HTTPException) as error:
            engine.close()
            self.say(502, f"the engine at {self.engine} does not answer: {error}\n")
            return
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            while part := answer.read1(65536):  # events go on as they come
                self.wfile.write(part)
        except (OSError, http.client.HTTPException):
            pass  # one of the two has gone; the page asks again
        finally:
            engine.close()

    def say(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--engine", default="http://127.0.0.1:9464", help="its http address (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="where the pages are (default: %(default)s)")
    arguments = parser.parse_args()
    address = urlsplit(arguments.engine)
    if address.scheme != "http" or not address.netloc:
        sys.exit(f"--engine {arguments.engine} is no address like http://127.0.0.1:9464")
    Handler.engine = address.netloc
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler) as server:
        server.daemon_threads = True
        for page in ("d3.html", "echarts.html"):
            print(f"http://127.0.0.1:{server.server_port}/{page}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
