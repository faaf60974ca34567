"""What guarding costs in instructions: the sums over a stream's processes, and the arithmetic of the turns."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from penstock_bench import instructions
from penstock_bench.instructions import Counted, measure, summary
from rich.console import Console

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError, NotReadyError


def terminal() -> tuple[Terminal, io.StringIO]:
    shown = io.StringIO()
    return Terminal(console=Console(file=shown, width=200)), shown


def counted(worker: int, supervisor: int = 1000) -> Counted:
    return Counted(records=100, seconds=2.0, worker=worker, supervisor=supervisor)


def test_the_worker_counts_by_the_record_and_the_supervisor_by_the_second() -> None:
    said, shown = terminal()
    turns = [{"plain": counted(1000), "guarded": counted(1010, 61_000)}, {"plain": counted(1000), "guarded": counted(1020, 61_000)}]  # fmt: skip
    found = summary(turns, said)
    assert found["instructions_per_record"]["mean"] == pytest.approx(1.015, abs=1e-4)
    assert found["instructions_per_record"]["error"] == pytest.approx(0.0049, abs=2e-4)
    assert found["supervisor_more_per_s"] == 30_000
    assert "1.0150 on average" in shown.getvalue()
    assert "+0.03 million a second, +0.001% of a core" in shown.getvalue()
    assert summary(turns[:1], terminal()[0])["instructions_per_record"]["error"] is None


def test_the_counts_of_every_process_are_found(tmp_path: Path) -> None:
    running: Any = SimpleNamespace(pid=7, entry=SimpleNamespace(folder=tmp_path))
    with pytest.raises(NotReadyError, match="counted nothing"):
        instructions._counted(running, records=10, seconds=1.0)
    (tmp_path / "counted.7").write_text("")
    (tmp_path / "counted.7.1").write_text("version: 1\nevents: Ir\nsummary: 500\n\nfn=(1) main\n1 500\n")
    (tmp_path / "counted.8.1").write_text("events: Ir\nfn=(1) main\n1 4000\ntotals: 4000\n")
    (tmp_path / "counted.9.1").write_text("events: Ir\ntotals: 6000\n")
    found = instructions._counted(running, records=10, seconds=2.0)
    assert (found.per_record, found.per_second) == (1000, 250)
    with pytest.raises(NotReadyError, match="more records"):
        instructions._counted(running, records=0, seconds=1.0)


def test_without_valgrind_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="needs valgrind"):
        measure(turns=1, records=10, seed=1, terminal=terminal()[0], clock=SystemClock())
