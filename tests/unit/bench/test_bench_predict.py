"""`penstock bench predict`: the same rows for all, taking turns, and whether the bar is met."""

import argparse
import io
from typing import Any

import pytest
from penstock_bench import predict
from rich.console import Console

from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError
from tests.clocks import SteppingClock


def run(*words: str) -> tuple[dict[str, Any], str]:
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    shown = io.StringIO()
    terminal = Terminal(console=Console(file=shown, width=120))
    return predict.run(parser.parse_args(words), terminal, SteppingClock()), shown.getvalue()


def test_all_are_timed_on_every_batch_size_and_the_bar_is_judged() -> None:
    found, shown = run("--models", "3x2", "--batches", "1,256", "--seconds", "0.1")
    (model,) = found["models"]
    assert model["model"] == "3x2"
    for batch in (1, 256):
        rates = model["rows_per_s"][str(batch)]
        assert set(rates) == {"penstock", "onnxruntime", "xgboost"}
        assert rates["penstock"] == pytest.approx(1000 * batch)
    assert "1x met" in shown  # as fast as the other on this clock: enough for one row,
    assert "2.5x missed" in shown  # and not for many


@pytest.mark.parametrize(
    "words", [("--batches", "0"), ("--models", "100"), ("--seconds", "0"), ("--batches", "x")]
)
def test_what_makes_no_sense_is_one_sentence(words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError):
        run(*words)
