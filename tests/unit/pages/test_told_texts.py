"""Texts of the engine's own are found again among the words, whatever stands in them; what others wrote stays as it is."""

import ast
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pages.sentences import filled, sentence
from penstock.engine.pages.told_texts import (
    as_it_is,
    as_told,
    characters_max,
    numbers,
    prefix,
    static_folder,
)
from penstock.schemas.errors import ConfigError
from tests.bundles import write_stump

english, chinese = (json.loads((static_folder / f"{each}.json").read_text()) for each in ("en", "zh"))
told_codes = [code for code in english if code.startswith(prefix) and code != as_it_is]
code_folder = Path(penstock.__file__).resolve().parent
samples = ("7", "corrupt", "decode", "running", "the record has no value")
"""One of them fits in every place: a number, a code out of each closed set, a text that is known."""

tellers: Final = (
    "engine/worker/situation.py", "engine/worker/input_state.py", "engine/worker/careful_reading.py", "engine/worker/telemetry.py",
    "engine/worker/supervisor.py", "engine/telemetry/status.py", "engine/telemetry/ask_workers.py", "engine/pipeline/hooks.py",
    "engine/pipeline/rejection_limit.py", "engine/pipeline/scorer.py", "engine/pipeline/outgoing.py", "engine/scaling/steadier.py",
    "engine/scaling/loop.py", "engine/scaling/flow.py", "engine/codec/json_text.py", "engine/codec/json_rows.py",
    "engine/codec/framing.py", "engine/codec/object_rows.py", "engine/codec/passed_fields.py", "engine/codec/avro/columns.py",
    "engine/codec/avro/reference.py", "engine/codec/avro/resolution.py", "engine/features/values.py", "engine/features/policies.py",
    "engine/models/runtime/loader.py", "engine/models/runtime/native_trees.py", "engine/models/runtime/tree_outputs.py",
    "engine/pages/trying.py", "engine/pages/watch.py", "engine/pages/serving/acting.py", "engine/pages/worker/record_document.py",
    "connectors/kafka/reading/careful.py", "connectors/kafka/contact.py", "connectors/registry/references.py",
)  # fmt: skip
"""Where the texts are made that pages show: what happened, what is waited for, why a record was rejected, why the number changed."""
apart: Final = frozenset(
    {
        # Parts of texts, which their tests put together.
        "the first record", "{} more records", "the first {} records", " for {}", " for {} now", "assigned partitions",
        "lost partitions", "gave back partitions", ": the group had gone on without this worker; what was in flight is read again by their next owner",
        "nothing unfinished", "{} polls unfinished, which will be read again", "stopped with {}", "{} {} of {}; {} owned now",
        "{} rejected for {}: partition {}, offset {}: {}; they are in the dead letters (penstock dlq list)",
        "partition {} waits{}: {}; other partitions go on", "{}; waiting for it{}", " and {} more", "partition {} at offset {} ({})",
        "worker {} read carefully and died of {} twice at the same place, with no broken batch to pass over: {}{}; penstock offsets reset --partition P --to-offset N moves a position with the workers stopped",
        "more than {} of the last {} records were rejected", "{} records in a row were rejected", ", from offset {} on",
        "{} records in a row, of several partitions, were rejected", "; {} of {} for {} at {}, the newest: {}",
        "set input.null_value: skip if records without a value are none to predict, or ",
        "{}, so the fault is hardly theirs{}; they are in the dead letters, and what stands behind them is not read. Repair the cause and start again, {}or raise dead_letters.run_max or dead_letters.share_max if these records really are to be set aside",
        "; faster than one worker, whatever their number: partition {}", ": {}", "an object", "a number", "a string", "a boolean", "a text", "an array",
        "an array of {} numbers", "the value", "in {} ", "{} is not {}", "; {}", "set input.json.nan: missing to read it, or let the producer write null", "the literal {}, which JSON does not have: {}",
        "is missing", "is infinite", "has a category that the model was not trained on", "is outside the ranges that the model takes", "feature {} {}",
        "a value of the record does not resolve to the reader's schema{}", "Extra data", "a union of {}", "{} of {}", "{} {}", "{} ({})",
        "the bytes end before the record does, {}at byte {}", "a length, index, number or text cannot be, {}before byte {}",
        "there are more items than are read, {}before byte {}", "{}, {}before byte {}",
        "a vector has another length than its feature, {}before byte {}", "feature {} has categories past 2^53", " or ", ", ", " ",
        "is nested deeper than {}", "has something in it that is no schema", "has a record {} without fields", "refers to {}, and is sent {}",
        "names {}, which is defined nowhere", "has a named type without a name",
        # Said to nobody but the process, its log or a command.
        "asked to stop while Kafka was waited for", "a record was asked for that is in none of the batches",
        "model.runtime native runs on the CPU, and model.device is {}", "device {}", "runtime {}",
        "the bundle keeps its trees as a table that our kernel reads, on the CPU, and model.{} asks for something else: leave it at auto",
        "our tree kernel", "model.runtime native: {}", "the model cannot run a batch of {} rows: {}",
        "the model takes rows of {} columns of float32, not {} of shape {}", "ONNX Runtime cannot run the rows to compare on: {}",
        "a boolean is neither 0 nor 1", "this is not an Avro schema: {}", "({} others)", "{}; {}",
        "worker {}",
    }
)  # fmt: skip


def filled_with(template: str, values: tuple[str, ...]) -> str:
    parts = iter(values)
    return re.sub(r"\{[^{}]*\}", lambda _: next(parts), template)


def known(template: str) -> bool:
    """Whether the template is a text of the words with something in its places."""
    places = len(re.findall(r"\{[^{}]*\}", template))
    for values in itertools.product(samples, repeat=min(places, 4)):
        found = filled_with(template, (*values, *["7"] * (places - len(values))))
        if as_told(found)["code"] != as_it_is:
            return True
    return False


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a module of more than a word, docstrings and lines of the log aside; {} where something is put in."""
    tree = ast.parse(path.read_text())
    aside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            aside.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            aside |= {id(each) for each in ast.walk(node) if each is not node}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Name) and of.id == "logger":
                aside |= {id(each) for argument in node.args[:1] for each in ast.walk(argument)}
        if isinstance(node, ast.AnnAssign) or (
            isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cast"
        ):
            annotation = node.annotation if isinstance(node, ast.AnnAssign) else node.args[0]
            aside |= {id(each) for each in ast.walk(annotation)}
    for node in ast.walk(tree):
        if id(node) in aside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, re.sub(r"\{[^{}]*\}", "{}", node.value)
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values
            )
            if " " in text:
                yield node.lineno, text


@pytest.mark.parametrize("module", tellers)
def test_every_text_that_a_page_may_show_is_among_the_words(module: str) -> None:
    """Who words a text anew, or adds one, adds it to the words of both languages."""
    missing = [
        (line, text) for line, text in literals(code_folder / module) if text not in apart and not known(text)
    ]
    assert not missing


def test_no_text_is_left_aside_that_is_not_there() -> None:
    assert apart <= {text for module in tellers for _, text in literals(code_folder / module)}


@pytest.mark.parametrize("code", told_codes)
def test_every_told_text_is_found_again(code: str) -> None:
    names = re.findall(r"\{([a-z_0-9]+)\}", english[code])
    codes = {"rejection": "corrupt", "stage": "decode", "state": "running"}
    for inner in samples:
        for other in ("7", samples[-1]):
            text = english[code]
            for at, name in enumerate(names):
                text = text.replace(
                    f"{{{name}}}", codes.get(name, "7" if name in numbers else other if at else inner)
                )
            found = as_told(text)
            assert found["text"] == text
            if found["code"] == code:
                assert set(found["values"]) == set(names)
                return
    pytest.fail(f"nothing is read as {code}")


@pytest.mark.parametrize(
    ("text", "code", "inner"),
    [
        ("partition 3 waits for 2 min 10 s: the schema registry does not know schema id 7; other partitions go on", "told.waits_long", {"reason": "told.registry_unknown"}),
        ("assigned partitions 0, 1, 2, ... (64 in all) of in; 64 owned now", "told.assigned", {"partitions": "told.some_of"}),
        ("joining: has been joining the group for 30 s: who it waits for is not known yet", "told.state_why", {"reason": "told.has_been_joining"}),
        ("scaling.max_replicas; more are needed: partition 3 stands still: no record was finished for 40 s", "told.why_because", {"why": "told.at_maximum", "because": "told.stands_still"}),
        ("cannot reach Kafka at a:1: no answer in time; waiting for it", "told.waiting_for_it", {"what": "told.cannot"}),
        ("the offsets have not been read yet: cannot reach Kafka at x:9: Failed to connect", "told.why_because", {"because": "told.cannot"}),
    ],
)  # fmt: skip
def test_texts_within_texts_are_sentences_themselves(text: str, code: str, inner: dict[str, str]) -> None:
    found = as_told(text)
    assert (found["code"], found["text"]) == (code, text)
    for name, wanted in inner.items():
        assert found["values"][name]["code"] == wanted


def test_numbers_are_numbers_and_an_offset_keeps_its_digits() -> None:
    found = as_told("1,234 offsets of topic in were deleted before the group read them")
    assert found["values"] == {"count": 1234, "topic": "in"}
    found = as_told("first record finished: partition 2, offset 123456, 0.4 s after warming")
    assert found["values"] == {"partition": 2, "offset": "123456", "seconds": 0.4}


@given(st.text(max_size=200))
def test_what_somebody_else_wrote_stays_as_it_is(text: str) -> None:
    found = as_told(text)
    assert found["text"] == text
    if found["code"] == as_it_is:
        assert found["values"] == {"text": text}


def test_a_text_made_to_take_long_takes_no_time() -> None:
    began_s = time.monotonic()
    for size in (100, characters_max, 1_000_000):
        hostile = "partition 1: " * (size // 13) + "; ".join(["a: b"] * 50)
        assert as_told(hostile[:size])["text"] == hostile[:size]
    assert time.monotonic() - began_s < 2.0


def test_a_sentence_about_a_text_of_ours_has_it_as_a_sentence() -> None:
    found = sentence("limit.waits", reason="paused by an operator, until resumed")
    assert found["values"]["reason"]["code"] == "told.paused"
    assert found["text"] == "Every partition waits: paused by an operator, until resumed."
    foreign = sentence("limit.waits", reason="Broker: Not coordinator")
    assert foreign["values"] == {"reason": "Broker: Not coordinator"}
    several = [sentence("reason.raised", feature="a", value=1.0, amount=2.0), sentence("reason.lowered", feature="b", value="x", amount=0.5)]  # fmt: skip
    assert filled("{reasons}.", {"reasons": several}) == "a = 1 raised it by 2; b = x lowered it by 0.5."


def spoilt(folder: Path, how: str) -> None:
    """A bundle that something happened to."""
    manifest, rows = folder / "manifest.json", folder / "golden_rows.npy"
    match how:
        case "nothing there":
            shutil.rmtree(folder)
        case "nothing in it":
            shutil.rmtree(folder)
            folder.mkdir()
        case "a file less":
            rows.unlink()
        case "a file more":
            (folder / "notes.txt").write_text("mine")
        case "a link":
            rows.rename(folder.with_name("rows.npy"))
            rows.symlink_to(folder.with_name("rows.npy"))
        case "a hard link":
            os.link(rows, folder.with_name("rows.npy"))
        case "another byte":
            rows.write_bytes(rows.read_bytes()[:-1] + b"\xff")
        case "another format":
            tree = json.loads(manifest.read_text())
            manifest.write_text(json.dumps(tree | {"format": 99}))
        case "no JSON":
            manifest.write_text("{")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("nothing there", "told.bundle_no_folder"), ("nothing in it", "told.bundle_none"), ("a file less", "told.bundle_missing"),
        ("a file more", "told.bundle_strange"), ("a link", "told.bundle_unreadable"), ("a hard link", "told.bundle_link"),
        ("another byte", "told.bundle_other"), ("another format", "told.bundle_format"), ("no JSON", "told.bundle_not_json"),
    ],
)  # fmt: skip
def test_why_a_bundle_cannot_be_tried_is_said_in_the_pages_language(
    how: str, code: str, tmp_path: Path
) -> None:
    folder = tmp_path / "stump"
    write_stump(folder)
    spoilt(folder, how)
    with pytest.raises(ConfigError) as refused:
        Bundle.load(folder)
    found = sentence("trial.not_loaded", reason=str(refused.value))
    reason = found["values"]["reason"]
    assert reason["code"] == code
    assert reason["values"]["folder"] == str(folder)
    assert filled(chinese[code], reason["values"]) != filled(english[code], reason["values"])


def test_what_else_keeps_a_bundle_from_being_tried_is_known() -> None:
    folder = "model bundle /models/next"
    for text, code in (
        (f"{folder}: it is not signed: model.sig is missing", "told.bundle_unsigned"),
        (f"{folder}: model.sig is by none of the trusted keys", "told.bundle_untrusted"),
        (f"{folder}: model.onnx changed while it was read", "told.bundle_changed"),
        (f"{folder}: model.onnx has 900 bytes, more than 800", "told.bundle_long"),
        ("on cpu the model does not say what it said when it was packaged: golden row 3 gets another class", "told.model_differs"),
        ("the schema of the bundle does not fit the model: field a is missing (there is b); field c is missing", "told.no_fit"),
    ):  # fmt: skip
        found = as_told(text)
        assert (found["code"], found["text"]) == (code, text)
