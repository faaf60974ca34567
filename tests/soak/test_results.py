"""The rows of the long run's report say what failed, in words."""

import sys
import time
from pathlib import Path

import pytest

from tests.chaos.stops import Ended, said_of
from tests.soak import run
from tests.soak.results import result_of
from tests.soak.run import Command, Outcome, chosen, report

log = Path("reports/soak/part.log")
of_a_worker = "2026-11-28T21:11:04.156+00:00 worker 0 INFO assigned partitions 0, 1, 2, 3, 4, 5 of stops-17; 6 owned now"


@pytest.mark.parametrize(
    ("lines", "code", "result"),
    [
        (["...", "1 passed in 13.74s"], 0, "1 passed in 13.74s"),
        (["==== 2 passed, 1 skipped in 61.02s (0:01:01) ===="], 0, "2 passed, 1 skipped in 61.02s (0:01:01)"),
        (
            ["FAILED tests/a.py::b - AssertionError: --- w.log", of_a_worker, "ERROR tests/c.py::d", "1 failed, 1 error in 2.00s"],
            1,
            "1 failed, 1 error in 2.00s: tests/a.py::b, tests/c.py::d",
        ),
        (["9 of 10 clean within 5 s, the longest 1.3 s; not so: drain 7 ended with exit code 1"], 1,
         "9 of 10 clean within 5 s, the longest 1.3 s; not so: drain 7 ended with exit code 1"),
        (["100 of 300 cells", "300 cells in 61 s: {'committed': 300}"], 0, "300 cells in 61 s: {'committed': 300}"),
        (["100 runs from seed 7 on with 5000 records in 3 s: 0 with findings"], 0, "100 runs from seed 7 on with 5000 records in 3 s: 0 with findings"),
        ([".pmml: 265 of 20,000, 8.5 a second", "160 model files from seed 7 on in 9 s: .pmml 160 (1 refused)"], 0, "160 model files from seed 7 on in 9 s: .pmml 160 (1 refused)"),
        (["1 of 4: XGBoost: 4,080 records, 0 off", "4,080 records of 1 families of 4: 0 off"], 0, "4,080 records of 1 families of 4: 0 off"),
        ([of_a_worker, "penstock top takes 1.50 % of a core at 4 looks a second"], 0, "penstock top takes 1.50 % of a core at 4 looks a second"),
        ([of_a_worker], 1, "ended with exit code 1 before it had a result; its output is reports/soak/part.log"),
        (["Traceback (most recent call last):", of_a_worker], -9, "ended with exit code -9 before it had a result; its output is reports/soak/part.log"),
        ([], 1, "ended with exit code 1 before it had a result; its output is reports/soak/part.log"),
        ([of_a_worker], None, "did not end in its time; its output is reports/soak/part.log"),
        (["100 of 300 cells", of_a_worker], None, "did not end in its time; its output is reports/soak/part.log"),
    ],
)  # fmt: skip
def test_a_result_is_what_the_part_says_of_itself_and_never_a_line_of_a_log(
    lines: list[str], code: int | None, result: str
) -> None:
    assert result_of(lines, code, log) == result


def test_of_many_failures_some_are_named_and_the_others_counted() -> None:
    lines = [*(f"FAILED tests/a.py::b[{number}] - E" for number in range(7)), "7 failed in 1.00s"]
    named = ", ".join(f"tests/a.py::b[{number}]" for number in range(5))
    assert result_of(lines, 1, log) == f"7 failed in 1.00s: {named} and 2 more"


def test_what_stops_and_kills_say_of_themselves_is_a_result() -> None:
    for ends in (
        [Ended(took_s=1.0), Ended(took_s=3.0)],
        [
            Ended(took_s=1.0),
            *(Ended(took_s=7.0, wrong=f"drain {n}: ended with exit code 1") for n in range(9)),
        ],
        [
            Ended(
                took_s=120.0, wrong="kill 1: not within 120 s: every partition is committed to after the kill"
            )
        ],
    ):
        for bar in ("within 13 s", "clean within 5 s"):
            said = said_of(ends, bar)
            assert result_of([of_a_worker, said], 1, log) == said
            assert all(each.wrong in said for each in ends[:5])


def test_a_part_that_was_not_run_keeps_its_row() -> None:
    def ran(part: str, result: str) -> Outcome:
        return Outcome(
            part=part, asked="nothing" if result == "not run" else "10", result=result, took_s=60.0, good=True
        )

    first = report([ran("kills", "2 of 2"), ran("drains", "9 of | 10")], seed=1, commit="aaa", before="")
    second = report(
        [ran("new", "not run"), ran("kills", "not run"), ran("drains", "10 of 10")],
        seed=2,
        commit="bbb",
        before=first,
    )
    assert "| kills | 10 | 2 of 2 | 1 min | yes | aaa, seed 1 |" in second
    assert "| drains | 10 | 10 of 10 | 1 min | yes | bbb, seed 2 |" in second
    assert "| new | nothing | not run | 1 min | - | - |" in second
    assert "9 of" not in second
    assert "| kills | 10 | 2 of 2 | 1 min | yes | aaa, seed 1 |" in report(
        [ran("new", "1 passed")], seed=3, commit="ccc", before=second
    ), "the page is written while parts are still to come"
    assert second.count("\n|") == 5


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_part_whose_time_is_over_ends_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_folder", tmp_path)
    told = tmp_path / "child"
    starts_one = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid)); time.sleep(600)"
    )
    part = Command(
        part="sleeps", asked=lambda _: "10", arguments=lambda _: [sys.executable, "-c", starts_one, str(told)]
    )
    outcome = part.run(1.0, 3.0)
    assert outcome.result == f"did not end in its time; its output is {tmp_path / 'sleeps.log'}"
    assert not outcome.good
    end_s = time.monotonic() + 30
    while _runs(int(told.read_text())):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_part_that_can_ends_itself_before_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_folder", tmp_path)
    says = "import sys; print(f'7 cells in {sys.argv[2]} h: all')"
    part = Command(
        part="m",
        asked=lambda _: "10",
        arguments=lambda _: [sys.executable, "-c", says],
        hours_option="--hours",
    )
    assert part.run(1.0, 3600.0).result == "7 cells in 0.9 h: all"


def test_a_part_is_chosen_by_its_whole_name_or_a_beginning() -> None:
    parts = ["mutants", "mutants of model files", "drains"]
    assert [p for p in parts if chosen(p, ["mutants"], parts)] == ["mutants"]
    assert [p for p in parts if chosen(p, ["mutants of", "dr"], parts)] == [
        "mutants of model files",
        "drains",
    ]
    assert [p for p in parts if chosen(p, [""], parts)] == parts


def test_the_chaos_of_a_long_run_has_its_folder_whatever_reads_paths_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model named from the folder of the long run was looked for in the folder of the settings: no worker ever started."""
    folders: list[Path] = []

    def looks(folder: Path, **_: object) -> None:
        folders.append(folder)
        assert folder.name != "chaos-7"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run_chaos", looks)
    Path("reports/soak").mkdir(parents=True)
    outcome = run.chaos(0.0, 7, 60.0)
    assert folders == [tmp_path / "reports" / "soak" / "chaos-7"]
    assert "seed 7 did not come to its end (reports/soak/chaos-7/chaos.log)" in outcome.result
    assert "(test_results.py:" in outcome.result
    assert not outcome.good
    log = (folders[0] / "chaos.log").read_text()
    assert 'assert folder.name != "chaos-7"' in log, "which of the many waits it was, the trace says"
    assert "in looks" in log
