"""`penstock bench score`: kernel and file are measured on the same model, and the bars are judged."""

import argparse
import io

import pytest
from penstock_bench import score
from rich.console import Console

from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError


def run(*words: str) -> tuple[dict[str, object], str]:
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    shown = io.StringIO()
    terminal = Terminal(console=Console(file=shown, width=120))
    return score.run(parser.parse_args(words), terminal), shown.getvalue()


def test_both_kinds_are_measured_beside_their_kernels() -> None:
    found, shown = run("--model", "3x2", "--rows", "2000", "--rounds", "1")
    assert set(found["rates"]) == {"predict", "explain"}  # type: ignore[call-overload]
    assert "60%" in shown
    assert "40%" in shown


@pytest.mark.parametrize("words", [("--rows", "0"), ("--rounds", "0"), ("--model", "many")])
def test_what_makes_no_sense_is_one_sentence(words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError):
        run(*words)
