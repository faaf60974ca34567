"""`penstock package` on model files that are nearly right: it packages or refuses each in a sentence, and never dies or hangs.

PENSTOCK_COMMAND_MUTANTS says how many of each format, PENSTOCK_COMMAND_MUTANTS_S within which seconds, PENSTOCK_COMMAND_MUTANTS_FIRST
from which seed on: `make soak` asks for 20,000, other ones each time.
"""

import os
import random
import time
from pathlib import Path

import pytest

from penstock.engine.cli.main import main
from tests.mutants_models import mutant, rows_of_two_classes, sound_files

_count = int(os.environ.get("PENSTOCK_COMMAND_MUTANTS", "2"))
_first = int(os.environ.get("PENSTOCK_COMMAND_MUTANTS_FIRST", "0"))
_within_s = float(os.environ.get("PENSTOCK_COMMAND_MUTANTS_S", "inf"))
_formats = (".json", ".ubj", ".txt", ".onnx", ".cbm", "cat.json", ".skops", ".pmml")
_mutant_s_max = 60
_foreign = ("Traceback", "[bt]", "[ONNXRuntimeError]", "/workspace", ".cc:", ".cpp:", "0x7f")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A sound file of every format."""
    return sound_files(*rows_of_two_classes(), tmp_path_factory.mktemp("sound"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(_mutant_s_max * max(_count, 5))
@pytest.mark.parametrize("ending", _formats)
def test_no_mutant_takes_the_command_down(
    ending: str, sound: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"m{ending}"
    refused = tried = 0
    began_s = time.monotonic()
    for seed in range(_first, _first + _count):
        if time.monotonic() - began_s > _within_s:
            break
        tried += 1
        path.write_bytes(mutant(sound[ending], random.Random(seed)))
        words = ["package", str(path), "--out", str(tmp_path / "bundle"), "--unproved"]
        code = main(words)
        said = capsys.readouterr().err
        assert code in (0, 1, 2), f"seed={seed}: {said}"
        assert not [sign for sign in _foreign if sign in said], f"seed={seed}: {said}"
        if code == 2:
            refused += 1
            assert len(said.strip().splitlines()) == 1, f"seed={seed}: {said}"
    assert tried < 50 or refused > tried // 10
    if _within_s < float("inf"):
        with capsys.disabled():
            print(f"\n{ending}: {tried} mutants from seed {_first} on, {refused} refused")
