"""What is not printable is shown, not sent; and text is never markup."""

import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.engine.console.logs import configure_logging
from penstock.engine.console.plain import PlainConsole
from penstock.engine.console.reasons import FeatureShare, draw
from penstock.engine.console.terminal import Terminal, json_text, printable
from penstock.engine.scaling.lag import Movement, PartitionLag

hostile = [
    "h\x1b]0;PWNED\x07\x1b[2J", "a\x9b31mb", "\u202egnp.exe", "zero\u200bwidth", "\ufeffx", "a\rb", "a\x00b", "del\x7f", "\x85next", "line\u2028",
    "evil[/red]", "price[usd]", "[bold]x[/bold]", "[/x]", "broken[/red]tag", "[link=http://x]y[/link]", ":skull:", "\\[x]", "[@click=quit]x[/]",
    "\U000e0041tag", "\ue000private", "price\ufe0f", "price\u3164", "a\u034fb", "\u0301x", "e" + "\u0301" * 9, "x\u20dd\u20dd\u20dd\u20dd\u20dd",
    "\u2800", "a\U000e0100", "\u115fx\u1160", "\x1b\u0301",
]  # fmt: skip


unseen_names = (
    "VARIATION SELECTOR",
    "HANGUL CHOSEONG FILLER",
    "HANGUL JUNGSEONG FILLER",
    "HANGUL FILLER",
    "KHITAN SMALL SCRIPT FILLER",
    "GRAPHEME JOINER",
    "VOWEL INHERENT",
    "BRAILLE PATTERN BLANK",
    "NULL NOTEHEAD",
)


def sound(text: str) -> bool:
    """No control, format, surrogate or private character but the line end, none that is not seen, and no heap of marks; the
    categories and the names are Unicode's own."""
    marks = 9
    for character in text:
        kind = unicodedata.category(character)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        named = unicodedata.name(character, "")
        if character != "\n" and (kind[0] == "C" or marks > 4 or any(each in named for each in unseen_names)):
            return False
    return True


def on_letters(text: str) -> bool:
    """Whether each mark stands on a letter, a number, or a character beyond ASCII: on a colon or a bar it would change what we draw."""
    base = ""
    for character in text:
        if unicodedata.category(character) not in ("Mn", "Me"):
            base = character
        elif base.isascii() and not base.isalnum():
            return False
    return True


def shown(what: RenderableType, width: int = 200) -> str:
    stream = io.StringIO()
    Terminal(console=PlainConsole(file=stream, width=width)).say(what)
    return stream.getvalue()


def in_a_table(text: str) -> Table:
    table = Table(text, "b", title=text, caption=text, show_footer=True)
    table.add_column(text, footer=text)
    table.add_row(text, Text(text), text)
    return table


@given(st.text())
def test_printable_text_holds_no_character_that_acts(text: str) -> None:
    assert sound(printable(text))
    assert "\n" not in printable(text)


@given(st.text(alphabet=st.characters(blacklist_categories=["C", "Z"])))
@example("a:\u135d")
@example("e\u0301")
def test_a_name_of_printable_characters_is_shown_unchanged(text: str) -> None:
    assert printable(text) == text or not sound(text) or not on_letters(text)


@pytest.mark.parametrize(
    "text",
    [
        "e\u0301",
        "\u0e01\u0e35\u0e48",
        "\u05e9\u05c1\u05b8\u0591",
        "\u0928\u093f",
        "o\u0302\u0301\u0323",
        "größe",
        "密码",
    ],
)
def test_marks_of_a_script_stay_where_they_are(text: str) -> None:
    assert printable(text) == text
    assert json.dumps(text, ensure_ascii=False) in json_text({"x": text})


def test_every_character_that_is_not_seen_is_written_out() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        named = unicodedata.name(character, "")
        if any(each in named for each in unseen_names):
            assert printable(f"a{character}").isascii(), hex(code)


@pytest.mark.parametrize("text", hostile)
def test_whatever_is_drawn_is_free_of_control_and_markup(text: str) -> None:
    reasons = [FeatureShare(feature=text, value=text, attribution=0.5)]
    for what in (text, Text(text), in_a_table(text), Group(text, Text(text)), draw(reasons)):
        out = shown(what)
        assert sound(out), ascii(out)
        assert isinstance(what, Text) or printable(text) in out, ascii(
            out
        )  # a Text leaves some of them out by itself


def test_lag_shows_an_owner_as_it_calls_itself() -> None:
    from penstock.engine.cli.commands.lag import as_table
    from penstock.engine.settings.model import parse_settings

    tree = {
        "kafka": {"bootstrap_servers": "h:1", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "m"},
    }
    settings = parse_settings(tree, origin="x", folder=Path("/"))
    for text in hostile:
        lag = PartitionLag(
            partition=0,
            committed=1,
            end=2,
            lag_records=1,
            lag_seconds=0.0,
            movement=Movement.BEHIND,
            owner=text,
        )
        out = shown(as_table([lag], settings))
        assert sound(out)
        assert printable(text) in out


@pytest.mark.parametrize("text", hostile)
def test_json_for_programs_is_safe_on_a_terminal_and_says_the_same(text: str) -> None:
    out = json_text({"name": text, text: [text]})
    assert sound(out), ascii(out)
    assert json.loads(out) == {"name": text, text: [text]}


@pytest.mark.parametrize("text", hostile)
def test_json_lines_are_objects_in_the_names_of_ecs(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], []
    try:
        configure_logging("worker 3", form="json")
        logging.getLogger("penstock.worker").info("cannot read %s", text)
        try:
            raise ValueError(f"CANARY {text}")
        except ValueError:
            logging.getLogger("grpc._server").exception("cannot parse")
    finally:
        root.handlers[:] = before
        root.setLevel(logging.WARNING)
    err = capsys.readouterr().err
    assert "CANARY" not in err
    assert all(sound(line) for line in err.splitlines())
    first, second = map(json.loads, err.splitlines())
    assert first["message"] == f"cannot read {printable(text)}"
    assert (first["log.level"], first["service.node.name"], first["log.logger"]) == (
        "info",
        "worker 3",
        "penstock.worker",
    )
    assert first["@timestamp"].endswith("Z")
    assert second["message"] == "cannot parse (ValueError)"


@pytest.mark.parametrize("text", hostile)
def test_log_lines_are_free_of_control(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], []
    try:
        configure_logging("worker 0")
        logging.getLogger("penstock.worker").info("cannot read %s\nfault fake line", text)
        logging.getLogger("httpx").info("HTTP Request: GET http://user:CANARY@host")
        try:
            raise ValueError(f"CANARY {text}")
        except ValueError:
            logging.getLogger("grpc._server").exception("cannot parse")
    finally:
        root.handlers[:] = before
        root.setLevel(logging.WARNING)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(sound(line) for line in lines)
    assert lines[1].endswith("cannot parse (ValueError)")


@pytest.mark.parametrize(
    "environ", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_an_encoding_that_lacks_a_character_is_no_traceback(environ: dict[str, str]) -> None:
    program = (
        "from penstock.engine.console.terminal import Terminal, write_safely\n"
        "from penstock.engine.console.reasons import FeatureShare, draw\n"
        "write_safely()\n"
        "for json in (False, True):\n"
        "    terminal = Terminal(json=json)\n"
        "    terminal.say('gr\\xf6\\xdfe \\u202e')\n"
        "    terminal.say(draw([FeatureShare(feature='gr\\xf6\\xdfe', value=1.0, attribution=-0.5)]))\n"
        "    terminal.result({'gr\\xf6\\xdfe': '\\xdf'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout[done.stdout.index(b"{") :]) == {"größe": "ß"}


def test_no_line_that_is_piped_ends_in_blanks() -> None:
    table = Table("name", "value", box=None)
    table.add_row("a", "long enough to fill the column")
    table.add_row("b", "short")
    lines = shown(table).splitlines()
    assert len(lines) == 3
    assert [line for line in lines if line != line.rstrip()] == []
