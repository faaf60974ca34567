"""The examples for HAProxy and Nginx, in the programs themselves: a supervisor that is not ready is given nothing."""

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from penstock.connectors.embedded.cluster import free_ports
from penstock.engine.telemetry.http_server import Answer, HttpServer, json_answer

proxies = Path(__file__).parents[3] / "deploy" / "proxy"
patience_s = 20.0
asks = 20


class Supervisor:
    """What a proxy sees of one: a page with its name, and whether it is ready."""

    def __init__(self, name: str) -> None:
        self.name, self.ready, self.asked = name, True, 0
        self.server = HttpServer(
            {"/": self.page, "/ready": lambda: json_answer({}, ok=self.ready)}, host="127.0.0.1", port=0
        )

    def page(self) -> Answer:
        self.asked += 1
        return json_answer({"name": self.name})


def haproxy(folder: Path, port: int, first: int, second: int) -> tuple[list[str], dict[str, str]]:
    places = {"LISTEN": port, "FIRST": first, "SECOND": second}
    return (
        ["haproxy", "-db", "-f", str(proxies / "haproxy.cfg")],
        {f"PENSTOCK_{name}": f"127.0.0.1:{value}" for name, value in places.items()},
    )


def nginx(folder: Path, port: int, first: int, second: int) -> tuple[list[str], dict[str, str]]:
    example = (proxies / "nginx.conf").read_text()
    for given, ours in (("127.0.0.1:8080", port), ("127.0.0.1:9464", first), ("127.0.0.1:9564", second)):
        assert example.count(given) == 1
        example = example.replace(given, f"127.0.0.1:{ours}")
    (folder / "penstock.conf").write_text(example)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}} "
        f"http {{ access_log off; {temporary} include {folder}/penstock.conf; }}"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], {}


@contextmanager
def running(kind: str, folder: Path, first: Supervisor, second: Supervisor) -> Iterator[str]:
    """The proxy's address."""
    (port,) = free_ports(1)
    make = {"haproxy": haproxy, "nginx": nginx}[kind]
    command, environment = make(folder, port, first.server.port, second.server.port)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}, stdout=said, stderr=said
        )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(patience_s)


def ask(address: str) -> str:
    """The name of who answered, or the status that it was refused with, or "" where nobody listens yet."""
    try:
        with urllib.request.urlopen(address, timeout=patience_s) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        return str(error.code)
    except urllib.error.URLError:
        return ""


def answers(address: str) -> set[str]:
    """Of so many requests without cookies."""
    return {ask(address) for _ in range(asks)}


def until(address: str, wanted: set[str]) -> None:
    """All the answers are these."""
    end_s, seen = time.monotonic() + patience_s, answers(address)
    while seen != wanted:
        assert time.monotonic() < end_s, f"{seen}, not {wanted}"
        time.sleep(0.2)
        seen = answers(address)


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_who_drains_is_given_nothing_and_who_is_back_is_asked_again(kind: str, tmp_path: Path) -> None:
    if shutil.which(kind, path="/usr/sbin:/usr/bin") is None:
        pytest.skip(f"{kind} is not at hand: apt-get install {kind}")
    with ExitStack() as held:
        supervisors = [Supervisor(name) for name in ("first", "second")]
        for each in supervisors:
            held.enter_context(each.server)
        first, second = supervisors
        named = {each.name: f'{{"name":"{each.name}"}}' for each in supervisors}
        address = held.enter_context(running(kind, tmp_path, first, second))
        # HAProxy spreads the requests, Nginx gives all to the first one that is ready.
        until(address, set(named.values()) if kind == "haproxy" else {named["first"]})
        first.ready = False
        until(address, {named["second"]})
        before = first.asked
        assert answers(address) == {named["second"]}
        assert first.asked == before
        second.ready = False
        until(address, {"503"})
        first.ready = True
        until(address, {named["first"]})
        second.ready = True
        until(address, set(named.values()) if kind == "haproxy" else {named["first"]})
        first.server.close()  # gone without a word
        until(address, {named["second"]})
