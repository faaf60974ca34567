"""The bill of materials lists every package and every shared library that is really there."""

import hashlib
import importlib.util
import json
import os
import re
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

root = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", root / "deploy" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document(sbom: ModuleType) -> dict[str, Any]:
    """Without the digests, which take a while over gigabytes; one is looked at below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sbom, "sha256", lambda path: f"{path.stat().st_size:064x}")
        found: dict[str, Any] = sbom.bill()
    return found


def libraries(document: dict[str, Any]) -> dict[str, str]:
    listed = [each for each in document["components"] if each["type"] == "file"]
    listed += [inner for each in document["components"] for inner in each.get("components", ())]
    assert len({each["name"] for each in listed}) == len(listed)
    return {each["name"]: each["hashes"][0]["content"] for each in listed}


def test_every_shared_library_of_the_environment_is_listed(document: dict[str, Any]) -> None:
    """Found by walking through the folders, with no regard to what packages say of themselves."""
    there = set()
    site = next(Path(each) for each in sys.path if each.endswith("site-packages"))
    for folder, _, names in os.walk(site):
        for name in names:
            data = (Path(folder) / name).open("rb") if ".so" in name else None
            if data is not None:
                with data:
                    if data.read(4) == b"\x7fELF":
                        there.add(str((Path(folder) / name).resolve()))
    there |= {str(path) for path in (root / "engine" / "native").glob("*.so")}
    base = Path(sys.prefix).resolve()
    listed = {name if "/" not in name else str(base / name) for name in libraries(document)}
    missing = {path for path in there if path not in listed and Path(path).name not in listed}
    assert len(there) > 100
    assert missing == set()


def test_every_package_is_listed_with_its_version(document: dict[str, Any]) -> None:
    listed = {each["name"]: each["version"] for each in document["components"] if each["type"] == "library"}
    pinned = re.findall(
        r"^([A-Za-z0-9._-]+)==([0-9][^ ;\\\\]*)", (root / "requirements.txt").read_text(), re.MULTILINE
    )
    pins: dict[str, set[str]] = {}  # several where it depends on the Python
    for name, version in pinned:
        pins.setdefault(name, set()).add(version)
    here = {name: listed[name] for name in pins if name in listed}
    assert len(here) > 80
    assert {name: version for name, version in here.items() if version not in pins[name]} == {}


def test_the_form_is_cyclonedx_and_holds_nothing_of_the_moment(document: dict[str, Any]) -> None:
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]
    refs = [each["bom-ref"] for each in document["components"]]
    assert len(set(refs)) == len(refs)
    assert str(Path.home()) not in json.dumps(document)
    assert str(root) not in json.dumps(document)


def test_digests_are_of_the_files(sbom: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "lib.so.1"
    file.write_bytes(b"x" * 3_000_000)
    made = sbom.file_component(file, "lib.so.1")
    assert made["hashes"][0]["content"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_licence_is_an_allowed_one_and_another_is_named(
    sbom: ModuleType, document: dict[str, Any]
) -> None:
    lines = [line.split("#")[0].strip() for line in (root / "deploy/licences.txt").read_text().splitlines()]
    allowed = {line for line in lines if line}
    assert sbom.refused(document, allowed) == []
    assert any(
        fault.startswith("numpy: ")
        for fault in sbom.refused(document, allowed - {line for line in allowed if line.startswith("numpy")})
    )


def test_an_advisory_is_passed_over_for_a_time_and_a_reason() -> None:
    for line in (root / "deploy/advisories.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            said = re.fullmatch(r"([A-Z][A-Za-z0-9-]+)  until (\d{4}-\d{2}-\d{2})  \S.*", line)
            assert said is not None, line
            assert date.fromisoformat(said[2]) >= date.today(), f"{said[1]} was passed over until {said[2]}"
