"""The references under docs/ are what the code says now."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from penstock.engine.settings.model import Settings, parse_settings

docs = Path(__file__).parents[2] / "docs"
references = runpy.run_path(str(docs / "build_reference.py"))["references"]


@pytest.mark.parametrize("name", sorted(references()))
def test_the_reference_is_up_to_date(name: str) -> None:
    assert (docs / name).read_text(encoding="utf-8") == references()[name], "run: make docs"


def test_the_example_in_full_is_settings(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", references()["settings.md"], flags=re.DOTALL)
    parse_settings(yaml.safe_load(block), origin="docs/settings.md", folder=tmp_path)


def test_every_section_has_its_table() -> None:
    text = references()["settings.md"]
    for name, field in Settings.model_fields.items():
        assert f"## {name}\n" in text or f"| `{field.alias or name}` |" in text, name


def test_secrets_stay_secrets_in_editors() -> None:
    password = json.loads(references()["settings.schema.json"])["$defs"]["SecuritySettings"]["properties"][
        "password"
    ]
    assert any(each.get("writeOnly") for each in password["anyOf"])
