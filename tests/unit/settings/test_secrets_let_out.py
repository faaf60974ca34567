"""The search for secrets finds them, whichever way they get out; and a run that lets none out is good."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.canaries import found_in

root = Path(__file__).resolve().parents[3]

plants = {
    "printed": "print('pass-' + bird)",
    "printed, and taken from the capture": "print(bird); capsys.readouterr()",
    "printed in base64": "import base64; print(base64.b64encode(f'ada:{bird}'.encode()).decode())",
    "logged": "import logging; logging.getLogger('penstock').warning('password %s', bird)",
    "logged with an error": "import logging\n    try: raise ValueError(bird)\n    except ValueError: logging.getLogger('x').exception('bad')",
    "printed by a process": "subprocess.run([sys.executable, '-c', 'print(input())'], input=bird, text=True, capture_output=True)",
    "written by a process": "subprocess.run([sys.executable, '-c', 'print(input())'], input=bird, text=True, stdout=(tmp_path / 'out').open('w'))",
    "arguments": "subprocess.run(['true', bird])",
    "arguments in /proc": (
        "subprocess.run([sys.executable, '-c', 'import os, sys; os.execvp(\"sh\", [\"sh\", \"-c\", \"sleep 1.5; :\", sys.stdin.readline()])'], "
        "input=bird, text=True)"
    ),
    "served": (
        "import http.server, threading, urllib.request\n"
        "    class H(http.server.BaseHTTPRequestHandler):\n"
        "        def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(bird.encode())\n"
        "        def log_message(self, *_): pass\n"
        "    s = http.server.HTTPServer(('127.0.0.1', 0), H); threading.Thread(target=s.handle_request).start()\n"
        "    r = urllib.request.urlopen(f'http://127.0.0.1:{s.server_port}/'); r.read(); r.close(); s.server_close()"
    ),
    "stored": (
        "from penstock.connectors.embedded.kafka import EmbeddedKafka\n"
        "    class P:\n        def close(self): pass\n"
        "    k = EmbeddedKafka(); k._root = tmp_path; k._processes = P()\n"
        "    (tmp_path / 'node-1/log/topic-0').mkdir(parents=True); (tmp_path / 'node-1/log/topic-0/0.log').write_bytes(bird.encode()); k.close()"
    ),
}  # fmt: skip


def run(folder: Path, bodies: dict[str, str], processes: int = 0) -> subprocess.CompletedProcess[str]:
    """A run of pytest of its own, with the search and one test for each body."""
    (folder / "conftest.py").write_text(
        "from tests.canaries import Canaries\n"
        "def pytest_configure(config): config.pluginmanager.register(Canaries(), 'canaries')\n"
    )
    tests = [f"def test_{name}(tmp_path, capsys):\n    {body}\n" for name, body in bodies.items()]
    (folder / "test_it.py").write_text(
        "import subprocess, sys\nbird = ''.join(['can', 'ary'])\n" + "".join(tests)
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(processes), "--rootdir", str(folder), "-c", "/dev/null", str(folder)],
        cwd=root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("processes", [0, 2])
def test_planted_leaks_fail_the_run_and_each_is_named(tmp_path: Path, processes: int) -> None:
    names = {way: "".join(c if c.isalnum() else "_" for c in way) for way in plants}
    done = run(tmp_path, {names[way]: body for way, body in plants.items()}, processes)
    assert done.returncode == 1, done.stdout
    assert f"{len(plants)} passed" in done.stdout  # nothing failed but the search
    for way, name in names.items():
        kind = way.split(",")[0].removesuffix(" in base64").removesuffix(" with an error")
        line = f"a secret was let out, {kind}.*: test_it.py::test_{name}$"
        assert re.search(line, done.stdout, re.MULTILINE), f"{line}\n{done.stdout}"


def test_one_leak_is_enough_and_none_is_good(tmp_path: Path) -> None:
    done = run(tmp_path, {"good": "print('hello'); subprocess.run(['true', 'word'])"})
    assert done.returncode == 0, done.stdout
    assert "canaries: 0 found" in done.stdout
    assert run(tmp_path, {"bad": "print(bird)"}).returncode == 1


def test_a_canary_is_found_in_base64_wherever_it_stands() -> None:
    bird = "".join(["can", "ary"])
    for before in range(9):
        for after in range(4):
            text = "x" * before + bird + "y" * after
            assert found_in(base64.b64encode(text.encode()))
            assert found_in(base64.urlsafe_b64encode(text.encode()))
            assert found_in(text.encode().hex())
    assert not found_in("no bird at all" * 100)
