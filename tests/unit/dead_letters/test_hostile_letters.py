"""`penstock dlq` on letters that anybody may have written: each oddity is one item that is named, and the rest goes on."""

import io
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka.reading.records import StoredMessage
from penstock.engine.cli.main import main
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.codec.plain_values import shown_depth_max
from penstock.engine.dead_letters.letters import LetterFilter, summarise
from penstock.engine.dead_letters.replay import Message, replay

schema = contract("dead_letter")
prefix = single_object_prefix(schema)
good_value = b'{"id": 1}'


def letter(payload: bytes | None = good_value, detail: str = "as the test wants it", **changes: Any) -> bytes:

    out = io.BytesIO()
    source = {"cluster": "c", "topic": "in", "partition": 0, "offset": 7, "timestamp_ms": 5}
    fastavro.schemaless_writer(
        out,
        fastavro.parse_schema(schema),
        {
            "source": {**source, **{name: changes.pop(name) for name in source if name in changes}},
            "stage": "decode", "reason": "corrupt", "detail": detail, "payload": payload, "headers": [],
            "model": {"name": "m", "version": "1", "digest": "d"}, "worker": "w", "at_ms": 5, **changes,
        },
    )  # fmt: skip
    return prefix + out.getvalue()


@dataclass
class Log:
    values: list[bytes | None] = field(default_factory=list)

    def read(self) -> Iterator[StoredMessage]:
        for offset, value in enumerate(self.values):
            yield StoredMessage(partition=0, offset=offset, key=b"k", value=value, headers=())

    def one(self, partition: int, offset: int) -> StoredMessage | None:
        return None

    def partitions(self) -> range:
        return range(2)

    def size(self) -> int:
        return len(self.values)

    def close(self) -> None:
        pass


@dataclass
class Returns:
    put_back: list[Message] = field(default_factory=list)

    def claim(self) -> None: ...
    def notes(self) -> dict[int, tuple[int, str]]:
        return {}

    def put(self, messages: Any, notes: Any) -> tuple[int, ...]:
        self.put_back += messages
        return ()


forged = [
    letter(at_ms=2**62),
    letter(at_ms=-(2**63), timestamp_ms=2**63 - 1),
    letter(timestamp_ms=253402300800000),
    letter(payload=None, detail=f"[payload left at the source: {'9' * 5000} bytes, sha256 {'0' * 64}] x"),
    letter(
        payload=None, detail=f"[payload left at the source: 9 bytes, sha256 {'0' * 64}] x", partition=10**9
    ),
    letter(partition=10**9),
    letter(partition=-1, offset=-5),
    letter(reason="[/x]", detail="broken[/red] \x1b[2J"),
    b"no letter",
    prefix + b"\xff" * 40,
    None,
    b"",
]


def test_a_forged_letter_does_not_block_the_others() -> None:
    log, returns = Log([*forged, letter(), *forged]), Returns()
    report = replay(log, Log(), returns, LetterFilter(), topic="in", again=False, dry_run=False)
    assert report.unreadable == 8
    assert report.foreign == 6  # the partition is none of the topic's
    assert report.replayed == len(returns.put_back)
    assert [message.value for message in returns.put_back].count(good_value) >= 1
    assert all(message.partition in range(2) for message in returns.put_back)
    found = summarise(log, LetterFilter(), newest_max=100)
    assert found.letters + found.unreadable == len(log.values)
    assert [(each.partition, each.offset) for each in found.unreadable_first[:4]] == [
        (0, 8),
        (0, 9),
        (0, 10),
        (0, 11),
    ]
    assert all(each.why for each in found.unreadable_first)


@given(
    values=st.lists(
        st.sampled_from(forged)
        | st.binary(max_size=60).map(lambda body: prefix + body)
        | st.builds(
            letter,
            at_ms=st.integers(-(2**63), 2**63 - 1),
            timestamp_ms=st.integers(-(2**63), 2**63 - 1),
            partition=st.integers(-(2**31), 2**31 - 1),
            offset=st.integers(-(2**63), 2**63 - 1),
            payload=st.none() | st.binary(max_size=8),
        ),
        max_size=6,
    )
)
def test_no_letters_end_a_look_or_a_replay(values: list[bytes | None]) -> None:
    log = Log(values)
    found = summarise(log, LetterFilter(), newest_max=3)
    report = replay(log, Log(), Returns(), LetterFilter(), topic="in", again=False, dry_run=False)
    assert found.letters == report.replayed + report.foreign + report.gone
    assert found.unreadable == report.unreadable


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes settings of a format with an Avro schema; `penstock dlq` then reads the letters given."""

    # Nobody is asked what this user may do: there is no broker.
    monkeypatch.setattr("penstock.engine.cli.commands.dlq._require_permissions", lambda *_: None)

    def write(letters: list[bytes | None], format: str, avro: Any = None) -> str:
        monkeypatch.setattr("penstock.engine.cli.commands.dlq._log", lambda *_: nullcontext(Log(letters)))
        (tmp_path / "s.avsc").write_text(json.dumps(avro or {"type": "record", "name": "R", "fields": []}))
        path = tmp_path / "penstock.yaml"
        path.write_text(f"""
            kafka: {{bootstrap_servers: "127.0.0.1:1", group: g}}
            input: {{topic: in, format: {format}, schema: s.avsc}}
            output: {{predictions: p, dead_letters: d}}
            model: {{path: nowhere}}
        """)
        return str(path)

    return write


def shown(settings: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["dlq", "show", settings, "0:7"]) == 0  # for people
    capsys.readouterr()
    assert main(["dlq", "show", settings, "0:7", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["payload"]


def test_list_names_what_it_cannot_read(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings([value for value in forged if value is None or b"[/x]" not in value], "json")
    assert main(["dlq", "list", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["letters"], found["unreadable"]) == (7, 4)
    assert len(found["unreadable_first"]) == 4
    assert main(["dlq", "list", path]) == 0
    assert "4611686018427387904" in capsys.readouterr().out


@pytest.mark.parametrize("depth", [99, 100, 300, 1000])
def test_show_survives_what_is_nested(settings: Any, capsys: pytest.CaptureFixture[str], depth: int) -> None:
    payload = b'{"a":' * depth + b"1" + b"}" * depth
    found, levels = shown(settings([letter(payload)], "json"), capsys), 0
    while isinstance(found, dict):
        found, levels = found["a"], levels + 1
    assert levels == min(depth, shown_depth_max)
    assert found == (1 if depth <= shown_depth_max else f"[nested deeper than {shown_depth_max}]")


def test_show_says_decimals_times_and_what_is_not_finite(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:

    fields: list[dict[str, Any]] = [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "nan", "type": "double"},
        {"name": "inf", "type": "float"},
    ]
    avro = {"type": "record", "name": "R", "fields": fields}
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out,
        fastavro.parse_schema(
            {**avro, "fields": [{**fields[0]}, {"name": "at", "type": "long"}, *fields[2:]]}
        ),
        {"amount": Decimal("2.56"), "at": 2**62, "nan": np.nan, "inf": np.inf},
    )
    payload = single_object_prefix(avro) + out.getvalue()
    assert shown(settings([letter(payload)], "avro", avro), capsys) == {
        "amount": "2.56", "at": 2**62, "nan": "nan", "inf": "inf",
    }  # fmt: skip


def test_show_says_numbers_of_any_size(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    payload = orjson.dumps({"big": 2**64 - 1, "small": -(2**63)})
    assert shown(settings([letter(payload)], "json"), capsys) == {"big": 2**64 - 1, "small": -(2**63)}
