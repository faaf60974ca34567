"""The guides: links lead somewhere, what is named is there, and closed sets are complete."""

import re
from pathlib import Path

import pytest
import yaml

from penstock.engine.telemetry.metrics_reference import all_declared
from penstock.schemas.reasons import Reason, Stage

root = Path(__file__).parents[2]
guides = sorted(path for folder in (root, root / "docs", root / "examples") for path in folder.rglob("*.md")
                if ".venv" not in path.parts and "build" not in path.parts)  # fmt: skip
named = re.compile(r"`((?:engine|connectors|schemas|deploy|tests|examples|benchmarks|docs)/[\w./-]*)`")


@pytest.mark.parametrize("guide", guides, ids=lambda path: str(path.relative_to(root)))
def test_links_and_names_lead_somewhere(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (guide.parent / path).resolve() if path else guide
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target
    for name in named.findall(text):
        assert (root / name).exists(), name


def test_every_stage_and_reason_of_a_dead_letter_is_explained() -> None:
    text = (root / "docs" / "contracts.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    assert rows == {*map(str, Reason), *map(str, Stage)}


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((root / "deploy" / "prometheus" / "penstock-rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    text = (root / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert alerts == set(re.findall(r"^### (Penstock\w+)$", text, flags=re.MULTILINE))


def test_metrics_named_in_the_guides_exist() -> None:
    known = {one.name for declared in all_declared().values() for one in declared}
    role = yaml.safe_load((root / "deploy/ansible/roles/penstock/meta/argument_specs.yml").read_text())
    known |= role["argument_specs"]["main"]["options"].keys()  # variables of Ansible are written the same way
    for guide in guides:
        for name in re.findall(r"`(penstock_[a-z_]+)`", guide.read_text(encoding="utf-8")):
            assert name in known, f"{guide.name}: {name}"
