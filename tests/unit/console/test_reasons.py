"""Reasons in words and bars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.console.reasons import FeatureShare, draw, in_words, signed_bar, strongest

reasons = [
    FeatureShare(feature="delay", value=42.0, attribution=1.9),
    FeatureShare(feature="carrier", value="UA", attribution=-0.4),
    FeatureShare(feature="gust", value=None, attribution=0.01),
]


def test_the_strongest_come_first_and_the_rest_is_their_sum() -> None:
    kept, rest = strongest(reasons, 1)
    assert [reason.feature for reason in kept] == ["delay"]
    assert rest == pytest.approx(-0.39)
    assert strongest(reasons, 0) == ([reasons[0], reasons[1], reasons[2]], 0.0)


def test_words_say_value_and_direction() -> None:
    assert [in_words(reason) for reason in reasons] == [
        "delay = 42 +1.9",
        "carrier = UA -0.4",
        "gust missing +0.01",
    ]
    assert in_words(reasons[0], lambda name, value: f"left {value:.0f} min late") == "left 42 min late +1.9"


@given(st.floats(-5, 5), st.integers(1, 30))
def test_a_bar_keeps_its_width_and_its_side(attribution: float, cells: int) -> None:
    bar = signed_bar(attribution, full=2.0, cells=cells).plain
    assert len(bar) == 2 * cells + 1
    left, right = bar.split("│")
    if attribution >= 0:
        assert left.strip() == ""
    else:
        assert right.strip() == ""


def test_a_drawing_names_what_it_leaves_out() -> None:
    lines = draw(reasons, top=2).plain.splitlines()
    assert len(lines) == 3
    assert "1 others" in lines[-1]
    assert "+1.900" in lines[0]
