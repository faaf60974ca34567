"""The replay with real workers, in its short form: what it must show, it shows."""

import json
import os

import pytest

from penstock.engine.cli.laboratory import find_laboratory
from penstock.engine.cli.main import main

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        "PENSTOCK_REPLAY" not in os.environ,
        reason="takes minutes of two cores that do little else: PENSTOCK_REPLAY=1, as `make soak` does",
    ),
]


def test_a_step_zero_and_back_and_a_rolling_upgrade_lose_and_double_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert find_laboratory()
    assert main(["bench", "replay", "--short", "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{") :])
    assert not [bar for bar, met in found["bars"].items() if not met], out
    assert found["parts"]["step"]["replicas_max"] >= 4
    assert set(found["audit"]["versions"]) == {"1", "2"}
