"""The files that ship JSON logs know every field of a line, by the name and kind that it is written with."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.console.logs import JsonLines
from penstock.schemas.log_codes import LogCode

root = Path(__file__).parents[3]
folder = root / "deploy" / "logs"


def lines() -> list[dict[str, Any]]:
    """A line of each kind: of a library, with a code, and with an error of our own."""
    form = JsonLines("worker 0")

    def line(name: str, extra: dict[str, str], error: bool) -> dict[str, Any]:
        info = None
        if error:
            try:
                raise ValueError("a fault")
            except ValueError:
                info = sys.exc_info()
        record = logging.LogRecord(name, logging.WARNING, __file__, 1, "text %d", (7,), info)
        record.__dict__.update(extra)
        parsed: dict[str, Any] = json.loads(form.format(record))
        return parsed

    return [
        line("httpx", {}, False),
        line("penstock.worker", LogCode.REPLICAS.extra, False),
        line("penstock.worker", {"event_code": "assigned"}, True),
    ]


def flat(properties: dict[str, Any], path: str = "") -> dict[str, str]:
    """Dotted name to type, of an index mapping."""
    found: dict[str, str] = {}
    for name, one in properties.items():
        found |= (
            flat(one["properties"], f"{path}{name}.") if "properties" in one else {path + name: one["type"]}
        )
    return found


def template() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "elasticsearch-template.json").read_text(encoding="utf-8"))
    return read


def test_the_template_maps_exactly_the_fields_of_a_line() -> None:
    written: dict[str, type] = {}
    for line in lines():
        written |= {name: type(value) for name, value in line.items()}
    mapped = flat(template()["template"]["mappings"]["properties"])
    assert mapped.keys() == written.keys()
    texts = {"message", "error.stack_trace"}
    kinds = {
        name: "text" if name in texts else "keyword" if kind is str else "long"
        for name, kind in written.items()
    }
    assert mapped == kinds | {"@timestamp": "date"}


def test_no_name_is_an_object_and_a_value_at_once() -> None:
    names = {name for line in lines() for name in line}
    assert not [name for name in names if any(other.startswith(name + ".") for other in names)]


def test_the_template_is_for_the_stream_that_both_shippers_write_to() -> None:
    read = template()
    (pattern,) = read["index_patterns"]
    assert read["data_stream"] == {}
    assert read["priority"] > 200  # what Elasticsearch brings for logs-*-* stands at 100, and Fleet's at 200
    logstash = (folder / "logstash.conf").read_text(encoding="utf-8")
    parts = [
        re.search(rf'data_stream_{part} => "(\w+)"', logstash) for part in ("type", "dataset", "namespace")
    ]
    fluent_bit = {name: value for _, name, value in sections("fluent-bit.conf")}
    for stream in ("-".join(part[1] for part in parts if part), fluent_bit["Index"]):
        assert re.fullmatch(pattern.replace("*", ".+"), stream), stream
    assert fluent_bit["Write_Operation"] == "create", "a data stream takes nothing else"


def sections(name: str) -> list[tuple[str, str, str]]:
    """(section, key, value) of a file of Fluent Bit."""
    found, section = [], ""
    for text in (folder / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", text):
            section = match[1]
        elif match := re.fullmatch(r" {4}(\w+) +(\S.*)", text):
            found.append((section, match[1], match[2]))
        else:
            assert not text or text.startswith("#"), text
    return found


def test_fluent_bit_reads_the_time_of_a_line_and_writes_it_once() -> None:
    parser = {
        key: value for section, key, value in sections("fluent-bit-parsers.conf") if section == "PARSER"
    }
    here = sections("fluent-bit.conf")
    assert ("FILTER", "Parser", parser["Name"]) in here
    assert ("SERVICE", "Parsers_File", "fluent-bit-parsers.conf") in here
    assert parser["Format"] == "json"
    line = lines()[0]
    time = datetime.strptime(line[parser["Time_Key"]], parser["Time_Format"].replace(".%L", ".%f"))
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60
    assert ("OUTPUT", "Time_Key", parser["Time_Key"]) in here
    assert parser["Time_Keep"] == "Off", "the output writes the time itself: a key would stand there twice"


@pytest.mark.parametrize("name", ["logstash.conf", "fluent-bit.conf"])
def test_the_shippers_change_no_name(name: str) -> None:
    text = "\n".join(
        line for line in (folder / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    )
    assert not re.search(r"mutate|rename|de_dot|Replace_Dots +On", text)
    assert text.count("{") == text.count("}")
    key = re.search(r"Key_Name +(\w+)", text) or re.search(r'source => "(\w+)"', text)
    assert key
    assert key[1] == "message", "a line that is no object stays under the name that others find it by"
