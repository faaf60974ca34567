"""The references under docs/ are what the code says now."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from penstock.engine.settings.model import Settings, parse_settings

docs = Path(__file__).parents[2] / "docs"
build = runpy.run_path(str(docs / "build_reference.py"))
references = build["references"]


@pytest.mark.parametrize("name", sorted(references()))
def test_the_reference_is_up_to_date(name: str) -> None:
    assert (docs / name).read_text(encoding="utf-8") == references()[name], "run: make docs"


def test_the_map_of_the_architecture_is_up_to_date() -> None:
    text = (docs.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert text == build["with_map"](text), "run: make docs"


def test_the_folders_stay_small() -> None:
    for folder in build["packages"]():
        if folder.name != "native":
            assert len(list(folder.glob("*.py"))) - 1 <= 16, folder


def test_the_unit_tests_mirror_the_packages() -> None:
    engine = {path.name for path in build["packages"]() if path.parent.name == "engine"}
    rooms = {"schemas", "connectors", "bench", "deploy", "native", "penstock", *engine}
    folders = {
        path.name
        for path in (docs.parent / "tests" / "unit").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert folders - rooms == set()
    assert not list((docs.parent / "tests" / "unit").glob("test_*.py"))


def test_the_example_in_full_is_settings(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", references()["settings.md"], flags=re.DOTALL)
    parse_settings(yaml.safe_load(block), origin="docs/settings.md", folder=tmp_path)


def test_every_section_has_its_table() -> None:
    text = references()["settings.md"]
    for name, field in Settings.model_fields.items():
        assert f"## {name}\n" in text or f"| `{field.alias or name}` |" in text, name


def test_every_key_has_a_meaning() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*(?:\|[^|]*)\| *([^|]*?) *\|$", references()["settings.md"], flags=re.MULTILINE
    )
    assert len(rows) > 60
    assert [key for key, meaning in rows if not meaning] == []


def test_secrets_stay_secrets_in_editors() -> None:
    password = json.loads(references()["settings.schema.json"])["$defs"]["SecuritySettings"]["properties"][
        "password"
    ]
    assert any(each.get("writeOnly") for each in password["anyOf"])
