"""The examples' READMEs: their commands are run as written, on a real Kafka, and print what is said there."""

import re
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.example_readmes import Examples, blocks, commands, root

pytest.importorskip("xgboost")
pytest.importorskip("pandas")

run_here = {"train_package_stream", "consume_explanations"}
run_elsewhere = {
    "faust_features": "tests/integration/test_faust_example.py",
    "front_ends": "tests/pages/test_front_ends.py",
}
flights_of_the_day = 877


@pytest.fixture(scope="module")
def examples(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Examples]:
    kafka = start_kafka()
    yield Examples(tmp_path_factory.mktemp("user") / "examples", kafka.bootstrap_servers)
    kafka.close()


@pytest.fixture(scope="module")
def streamed(examples: Examples) -> dict[str, str]:
    """What the commands of the first example printed."""
    return examples.follow("train_package_stream")


def test_every_example_has_a_readme_whose_commands_are_run() -> None:
    folders = {path.name for path in (root / "examples").glob("[a-z]*/")}
    assert folders == run_here | set(run_elsewhere)
    index = (root / "examples" / "README.md").read_text(encoding="utf-8")
    for example in folders:
        assert f"]({example}/)" in index
        assert commands(example)
    for file in run_elsewhere.values():
        assert file in index
        assert (root / file).exists()


def figures(summary: str) -> tuple[int, float]:
    """How many predictions, and how far off, of the last line of read.py."""
    match = re.fullmatch(r"(\d+) predictions, (\d+\.\d) min off on average", summary)
    assert match, summary
    return int(match[1]), float(match[2])


@pytest.mark.kafka
def test_a_first_project_predicts_what_came_true(streamed: dict[str, str]) -> None:
    assert re.search(r"trained on [\d,]{6} flights, packaged in models/air-time", streamed["python train.py"])
    apart = re.search(r"at most (\S+) apart on [\d,]+ rows", streamed["python train.py"])
    assert apart
    assert float(apart[1]) < 1e-4
    assert streamed["python topics.py"].count(": made") == 4
    assert f"{flights_of_the_day} flights sent" in streamed["python produce.py"]

    printed = streamed["python read.py"].splitlines()
    said = blocks("train_package_stream", "text")[0].splitlines()
    count, off_min = figures(printed[-1])
    said_count, said_off_min = figures(said[-1])
    assert count == said_count == flights_of_the_day
    assert off_min == pytest.approx(said_off_min, abs=0.3)
    line = re.compile(r"(\S+): (\d+) min expected, (\d+) flown")
    assert len(printed) == 6
    assert all(map(line.fullmatch, [*printed[:-1], *said[:-1]]))


@pytest.mark.kafka
def test_each_explanation_is_kept_once_and_adds_up_to_the_prediction(
    examples: Examples, streamed: dict[str, str]
) -> None:
    printed = examples.follow("consume_explanations")
    first, again = (printed[command].splitlines() for command in commands("consume_explanations"))
    said_first, said_again = (block.splitlines() for block in blocks("consume_explanations", "text"))
    assert (first[-1], again) == (said_first[-1], said_again)

    database = sqlite3.connect(examples.folder / "consume_explanations" / "explanations.sqlite")
    rows = database.execute(
        "SELECT DISTINCT cluster, topic, partition, offset, reasons FROM explanations"
    ).fetchall()
    database.close()
    assert len(rows) == flights_of_the_day
    assert {topic for _, topic, *_ in rows} == {"flights"}
    sentence = re.compile(r"(\S+): (-?[\d.]+), on average (-?[\d.]+): (.+)")
    scores = {}
    for *_, reasons in rows:
        match = sentence.fullmatch(reasons)
        assert match, reasons
        flight, score, average = match[1], float(match[2]), float(match[3])
        parts = [float(part) for part in re.findall(r"\(([+-][\d.]+)\)", match[4])]
        assert len(parts) == 4
        assert average + sum(parts) == pytest.approx(score, abs=0.35)  # six numbers of one decimal
        scores[flight] = score
    for line in streamed["python read.py"].splitlines()[:-1]:
        flight, expected = re.fullmatch(r"(\S+): (\d+) min expected, \d+ flown", line).groups()  # type: ignore[union-attr]
        assert scores[flight] == pytest.approx(float(expected), abs=0.56)
    assert all(sentence.fullmatch(line) for line in [*first[:-1], *said_first[:-1]])
