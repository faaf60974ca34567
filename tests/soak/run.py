"""`make soak`: the long runs, scaled to the hours there are, and the report of what was run in docs/figures/soak.md."""

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaException

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.chaos.run import Report, run_chaos
from tests.error_matrix.cells import codes, every_cell, spots
from tests.soak.results import failed_shown_max, result_of
from tests.unit.rules.alertmanager import missing

whole_hours: Final = 40.0
"""What all of it takes on two cores, about; a part gets its share of the hours that are given."""
chaos_records, chaos_faults = 10_000_000, 1_000
model_mutants: Final = 20_000
"""Of each format; other seeds each time, so that runs that are cut short add up."""
made_records: Final = 1_000_000
_mutant_hours: Final = 3.0
"""What all formats get of the whole."""
_made_hours: Final = 3.0
"""What all families of models get of it, and all of pipelines."""
_chaos_faults_a_run = 50
_folder: Final = Path("reports/soak")
_row: Final = re.compile(r"^(\| ([^|]+?) \|(?:[^|\n]*\|){4,5})$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one part did."""

    part: str
    asked: str
    result: str
    took_s: float
    good: bool


@dataclass(frozen=True, kw_only=True)
class Command:
    """A part that is a command of its own."""

    part: str
    asked: Callable[[float], str]
    arguments: Callable[[float], Sequence[str]]
    environment: Callable[[float], Mapping[str, str]] = field(default=lambda _: {})
    there: Callable[[], bool] = lambda: True
    lacks: str = "not in this version"
    hours_option: str | None = None
    """The command's own for how many hours it may take: then it ends by itself, with a result."""

    def run(self, share: float, limit_s: float) -> Outcome:
        """Run it, for at most so long."""
        asked = self.asked(share)
        if not self.there():
            return Outcome(
                part=self.part, asked=asked, result=f"{self.lacks}: not run", took_s=0.0, good=True
            )
        began_s = time.monotonic()
        log = _folder / f"{self.part.replace(' ', '-')}.log"
        ends_itself = [self.hours_option, f"{0.9 * limit_s / 3600:g}"] if self.hours_option else []
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self.arguments(share), *ends_itself], stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment(share)}, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                code: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the workers that it has started
                process.wait()
                code = None
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        result = result_of(log.read_text(errors="replace").splitlines(), code, log)
        return Outcome(
            part=self.part, asked=asked, result=result, took_s=time.monotonic() - began_s, good=code == 0
        )


def _count(whole: int, share: float, least: int = 1) -> int:
    return max(round(whole * share), least)


def _made(part: str, what: str, only: str) -> Command:
    """Records made for each family whose name begins with one of these."""
    return Command(
        part=part,
        asked=lambda share: f"up to {made_records:,} of each family of {what}, within {_made_hours * share * 60:.0f} min",
        arguments=lambda share: [
            sys.executable, "-P", "-m", "tests.soak.made_records", "--records", str(made_records),
            "--minutes", str(_made_hours * share * 60), "--only", only,
        ],
        environment=lambda _: {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _pytest(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "360000",
        *arguments,
    ]


def _matrix_cells(share: float) -> int:
    return min(_count(len(codes), share, 2), len(codes))


commands: Final = (
    Command(
        part="protocol error matrix",
        asked=lambda share: f"of {min(len(spots) * _matrix_cells(share), len(every_cell())):,} cells of {len(every_cell()):,} those that no run had yet",
        arguments=lambda share: [
            sys.executable, "-m", "tests.error_matrix.run", "--per-spot", str(_matrix_cells(share)), "--seed", "1",
            "--missing", "--report", "docs/figures/error-matrix.md",
        ],
        hours_option="--hours",
    ),
    Command(
        part="simulation",
        asked=lambda share: f"{_count(1_000_000, share, 100):,} seeds",
        arguments=lambda share: [
            sys.executable, "-P", "-m", "penstock", "simulate", "faults", "--seeds", str(_count(1_000_000, share, 100)),
            "--first", str(int(time.time())),  # others each time, so that runs that are cut short add up
        ],
        hours_option="--hours",
        there=lambda: subprocess.run(
            [sys.executable, "-P", "-m", "penstock", "simulate", "faults", "--help"], capture_output=True, check=False
        ).returncode == 0,
    ),
    Command(
        part="mutants",
        asked=lambda share: f"{_count(1_000_000, share, 1000):,} mutants",
        arguments=lambda _: _pytest("tests/unit/codec/test_mutants.py", "tests/unit/batch/test_csv_parts.py"),
        environment=lambda share: {
            "PENSTOCK_MUTANTS": str(_count(1_000_000, share, 1000)),
            "PENSTOCK_CSV_RUNS": str(_count(100_000, share, 200)),
        },
    ),
    Command(
        part="model matrix",
        asked=lambda share: f"{'every case' if share >= 1 else f'{_count(510, share, 16)} cases of 510'}, "
        f"{_count(10_000, share, 100):,} random pipelines, {_count(2_000, share, 20):,} PMML files of each family",
        arguments=lambda _: _pytest(
            "tests/unit/models/test_sklearn_matrix.py", "tests/unit/models/test_random_pipelines.py",
            "tests/unit/models/test_narrowing.py", "tests/unit/models/test_pmml.py",
        ),
        environment=lambda share: {
            "PENSTOCK_PMML": str(_count(2_000, share, 20)),
            "PENSTOCK_PIPELINES": str(_count(10_000, share, 100)),
            "PENSTOCK_MATRIX": "all" if share >= 1 else str(_count(510, share, 16)),
            "PENSTOCK_SOAK_RECORDS": str(_count(1_000_000, share, 4000)),
            "OMP_NUM_THREADS": "1",
        },
    ),
    Command(
        part="mutants of model files",
        asked=lambda share: f"up to {model_mutants:,} of each of 8 formats, within {_mutant_hours * share * 60:.0f} min",
        arguments=lambda share: [
            sys.executable, "-P", "-m", "tests.soak.model_mutants", "--each", str(model_mutants), "--first", str(int(time.time())),
            "--minutes", str(_mutant_hours * share * 60),
        ],
    ),
    _made("made records", "model", "XGBoost, |LightGBM, |CatBoost, |scikit-learn, "),
    _made("records made for pipelines", "pipeline", "pipeline, "),
    Command(
        part="kill -9 to the survivor's commit",
        asked=lambda share: f"{_count(100, share, 2)} kills",
        arguments=lambda share: [
            sys.executable, "-m", "tests.chaos.stops", "kills", str(_count(100, share, 2)), "--at-once", "4",
        ],
    ),
    Command(
        part="readers behind a kill",
        asked=lambda share: f"{_count(100, share, 4)} kills amid a transaction, in both protocols, taken up by the same and by another pod",
        arguments=lambda share: [sys.executable, "-m", "tests.chaos.gaps", str(_count(100, share, 4))],
    ),
    Command(
        part="scaler through outages",
        asked=lambda share: f"{_count(20, share, 2)} outages of 10 to 600 s",
        arguments=lambda share: [sys.executable, "-m", "tests.chaos.scaler_outages", str(_count(20, share, 2))],
    ),
    Command(
        part="guarded stream",
        asked=lambda share: "an identity provider away for a minute in three ways; a bundle exchanged under 4 workers and 15 kills",
        arguments=lambda share: _pytest(
            "tests/integration/test_secured_kafka.py", "tests/integration/test_guarded_stream.py"
        ),
        environment=lambda share: {"PENSTOCK_TOKENS_AWAY_S": "60", "PENSTOCK_GUARDED_LONG": "1"},
    ),
    Command(
        part="alerts in Prometheus",
        asked=lambda _: "each from a fault to a receiver, by Prometheus and Alertmanager",
        arguments=lambda _: _pytest("tests/unit/rules/test_rules_in_prometheus.py"),
        environment=lambda _: {"PENSTOCK_ALERTS": "1"},
        there=lambda: not missing(),
        lacks=missing(),
    ),
    Command(
        part="replay with real workers",
        asked=lambda _: "a step to ten times the load, zero and back, a rolling upgrade",
        arguments=lambda _: _pytest("tests/integration/test_replay.py"),
        environment=lambda _: {"PENSTOCK_REPLAY": "1"},
    ),
    Command(
        part="hints on generated loads",
        asked=lambda _: "11 causes, 20 loads each; 200 well ones; four faults in a whole engine",
        arguments=lambda _: _pytest("tests/unit/hints", "tests/pages/test_hints_of_faults.py"),
        environment=lambda _: {"PENSTOCK_HINTS": "1"},
    ),
    Command(
        part="terminal",
        asked=lambda _: "penstock top, four times a second, 200 columns, for a minute",
        arguments=lambda _: [sys.executable, "-P", "-m", "tests.soak.terminal_cost"],
        environment=lambda _: {"OMP_NUM_THREADS": "1"},
    ),
    Command(
        part="numbers that agree",
        asked=lambda _: "100,000 records, 1 % of them bad",
        arguments=lambda _: _pytest("tests/integration/test_top_and_tail.py"),
        environment=lambda _: {"PENSTOCK_AGREE_RECORDS": "100000"},
    ),
    Command(
        part="drains",
        asked=lambda share: f"{_count(1000, share, 10)} drains",
        arguments=lambda share: [
            sys.executable, "-m", "tests.chaos.stops", "drains", str(_count(1000, share, 10)), "--at-once", "3",
        ],
    ),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every part was good."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument(
        "--hours", type=float, default=whole_hours, help="what there is; the whole takes %(default)g"
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the chaos runs (default: the time)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="so long a part may take at most (default: the hours); one that is not done then says so",
    )
    parser.add_argument("--only", default="", help="parts whose names begin so, with commas")
    parser.add_argument("--report", type=Path, default=Path("docs/figures/soak.md"))
    arguments = parser.parse_args(argv)
    _folder.mkdir(parents=True, exist_ok=True)
    share = min(arguments.hours / whole_hours, 1.0)
    wanted = arguments.only.split(",")
    before = arguments.report.read_text() if arguments.report.exists() else ""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = asked.stdout.strip() or "unknown"
    limit_s = 60 * (arguments.minutes or 60 * max(arguments.hours, 0.05))
    parts: dict[str, Callable[[], Outcome]] = {"chaos": partial(chaos, share, arguments.seed, limit_s)}
    parts |= {command.part: partial(command.run, share, limit_s) for command in commands}
    outcomes = []
    for name, run in parts.items():
        if not chosen(name, wanted, parts):
            outcomes.append(Outcome(part=name, asked="nothing", result="not run", took_s=0.0, good=True))
            continue
        outcomes.append(run())
        arguments.report.write_text(report(outcomes, seed=arguments.seed, commit=commit, before=before))
        print(f"{outcomes[-1].part}: {outcomes[-1].result} ({outcomes[-1].took_s:.0f} s)", flush=True)
    return int(not all(outcome.good for outcome in outcomes))


def chosen(part: str, wanted: Collection[str], parts: Collection[str]) -> bool:
    """Whether a part is meant by one of these words: its whole name, or the beginning of one where it is no part's whole name."""
    return part in wanted or any(part.startswith(word) for word in wanted if word not in parts)


def chaos(share: float, seed: int, limit_s: float) -> Outcome:
    """Runs of fifty faults each, on one node and on three, in both group protocols, as the seed says; none begins when the
    time is over."""
    began_s = time.monotonic()
    left = _count(chaos_faults, share, 20)
    records_each = chaos_records / chaos_faults
    found: list[Report] = []
    wrong: list[str] = []
    while left > 0 and time.monotonic() - began_s < limit_s:
        faults, turn = min(left, _chaos_faults_a_run), len(found) + len(wrong)
        left -= faults
        folder = _folder.absolute() / f"chaos-{seed + turn}"  # settings take paths as from their own folder
        folder.mkdir(exist_ok=True)
        with (folder / "chaos.log").open("w") as log:
            try:
                found.append(
                    run_chaos(
                        folder, start=_started, nodes=(1, 3)[(seed + turn) % 2],
                        protocol=("classic", "consumer")[(seed + turn) // 2 % 2],
                        records=round(faults * records_each), faults=faults, seed=seed + turn,
                        tell=lambda line, log=log: print(line, file=log, flush=True),  # type: ignore[misc]
                    )
                )  # fmt: skip
                wrong += [f"seed {seed + turn}: {each}" for each in found[-1].audit.faults]
            except (
                AssertionError,
                KafkaException,
                TimeoutError,
            ) as error:  # the last two of what the test asks itself
                print(traceback.format_exc(), file=log, flush=True)
                wrong.append(
                    f"seed {seed + turn} did not come to its end ({_folder / folder.name / 'chaos.log'}): {_sentence(error)}"
                )
    audits = [each.audit for each in found]
    total = f"{sum(a.inputs for a in audits):,} records, {sum(sum(r.faults.values()) for r in found)} faults"
    bad = ", ".join(
        f"{sum(len(getattr(audit, kind)) for audit in audits)} {kind}"
        for kind in ("lost", "doubled", "torn", "reordered", "wrong")
    )
    if ends := sum(each.client_ends for each in found):
        bad += f"; {ends} stops ended by an assertion of the client's"
    return Outcome(
        part="chaos",
        asked=f"{round(_count(chaos_faults, share, 20) * records_each):,} records, {_count(chaos_faults, share, 20)} faults",
        result=f"{total}: {bad}" + (f"; {_some(wrong)}" if wrong else ""),
        took_s=time.monotonic() - began_s,
        good=not wrong,
    )


def _sentence(error: Exception) -> str:
    """What was asserted, without the logs that it may quote, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = (str(error).splitlines() or [where.line or "an assertion"])[0]
    return f"{said} ({Path(where.filename).name}:{where.lineno})"


def _some(wrong: Sequence[str]) -> str:
    more = f"; and {len(wrong) - failed_shown_max} more" if len(wrong) > failed_shown_max else ""
    return "; ".join(wrong[:failed_shown_max]) + more


def _started(**arguments: object) -> EmbeddedKafka:
    kafka = EmbeddedKafka(**arguments)  # type: ignore[arg-type]
    kafka.start()
    return kafka


def _word(outcome: Outcome) -> str:
    if outcome.result.endswith("not run"):
        return "-"
    return "yes" if outcome.good else "**no**"


def report(outcomes: Sequence[Outcome], *, seed: int, commit: str, before: str) -> str:
    """The page. `before`: the page as it was; a part that was not run keeps its row."""
    known = {match[2]: match[1] for match in _row.finditer(before)}
    rows = {
        each.part: f"| {each.part} | {each.asked} | {each.result.replace('|', '/')} | {each.took_s / 60:.0f} min | {_word(each)} "
        f"| {f'{commit}, seed {seed}' if each.asked != 'nothing' else '-'} |"
        for each in outcomes
    }
    rows |= {
        each.part: known[each.part] for each in outcomes if each.result == "not run" and each.part in known
    }
    rows |= {
        part: row for part, row in known.items() if part not in rows and part != "part"
    }  # not reached yet
    return "\n".join(
        [
            "# The last long run",
            "",
            "Written by `make soak`; of each part the last time that it was run, with the commit. "
            f"Python {platform.python_version()}, librdkafka {confluent_kafka.libversion()[0]}, Kafka 4.1.1, {os.cpu_count()} cores.",
            "",
            "| part | asked for | result | took | good | at |",
            "|---|---|---|---|---|---|",
            *rows.values(),
            "",
            f"The whole is {chaos_records:,} records under {chaos_faults:,} faults, every cell of the error matrix, 1,000,000 seeds, 1,000,000",
            "mutants, every case of the model matrix, 20,000 model files of each format that are nearly right, 1,000,000 records of each",
            "family of models, 100 kills and 1,000 drains.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
