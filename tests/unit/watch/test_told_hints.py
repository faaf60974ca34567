"""What `lag` and `doctor` say of a running engine's forecast, and that they do not know it where nobody answers."""

from typing import Any

import pytest

from penstock.engine.cli.commands.lag import Forecast
from penstock.engine.hints.causes import Cause, Hint, Hints, RuledOut
from penstock.engine.hints.forecast import Breach
from penstock.engine.pages.documents.hints import hints_told
from penstock.engine.telemetry.http_server import HttpServer, json_answer
from penstock.engine.watch.told_hints import ask_hints
from penstock.schemas.errors import ConfigError, UnavailableError

found = Hints(
    breach=Breach(from_s=130, to_s=240),
    causes=(Hint(cause=Cause.MORE_TRAFFIC, score=0.8, values={"rate": 1234, "ratio": 1.8}),),
    ruled_out=(RuledOut(cause=Cause.SLOW_MODEL, ratio=1.01),),
    seen_s=600,
    age_s=3,
)


def serving(answer: Any) -> HttpServer:
    return HttpServer({"/api/v1/hints": lambda: json_answer(answer)}, host="127.0.0.1", port=0)


def test_the_forecast_and_the_likeliest_cause_are_told_in_a_line_each() -> None:
    with serving(hints_told(found, workers=True)) as server:
        told = ask_hints(f"http://127.0.0.1:{server.port}")
    assert told.breach_s == (130.0, 240.0)
    assert Forecast(told=told).lines() == [
        "forecast: The oldest record will be older than scaling.max_age_s allows in 2.2 to 4 min.",
        "likeliest cause: More arrives than the workers do (1,234 records a second, 1.8 times as many as before, on all "
        "partitions): penstock lag penstock.yaml",
    ]
    assert told.ruled_out == ("The model takes as long as before (1.01 times).",)


@pytest.mark.parametrize(
    "answer", [{}, [], 3, None, {"summary": [], "breach": 1, "causes": []}, {"breach": None}]
)
def test_a_stranger_is_one(answer: Any) -> None:
    with serving(answer) as server, pytest.raises(UnavailableError, match="does not answer as an engine"):
        ask_hints(f"http://127.0.0.1:{server.port}")


def test_nobody_there_is_not_known_and_not_well() -> None:
    with HttpServer({}, host="127.0.0.1", port=0) as server:
        port = server.port
        with pytest.raises(UnavailableError, match="answers 404"):
            ask_hints(f"http://127.0.0.1:{port}")
    with pytest.raises(UnavailableError, match="nobody answers"):
        ask_hints(f"http://127.0.0.1:{port}")
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        ask_hints("ftp://here")
    assert Forecast(unknown="nobody").lines() == ["forecast and cause: cannot be known: nobody"]
