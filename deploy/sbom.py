"""What an environment consists of, as a CycloneDX bill of materials: every package, and every shared library inside it.

    python deploy/sbom.py sbom.json              # of the environment that runs this
    python deploy/sbom.py sbom.json --licences deploy/licences.txt
    python deploy/sbom.py sbom.json --root ROOT  # and of the image that deploy/rootfs.py has put together there

Scanners of packages do not look into wheels, where most of the native code of an environment lies. The same environment gives the same
bytes: there is no time and no serial number in it. With --licences a package whose licence is not in the file ends it with 1.
"""

import argparse
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

shared = re.compile(r"\.so(\.[0-9.]+)?$|\.(dylib|dll|pyd)$")
piece_bytes = 1 << 20


def canonical(name: str) -> str:
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(distribution: Distribution) -> str:
    """What its metadata say: an SPDX expression, else classifiers, else free text cut to its first line; "" for nothing."""
    found = distribution.metadata
    if found.get("License-Expression"):
        return str(found["License-Expression"])
    named = [
        each.rpartition(" :: ")[2]
        for each in found.get_all("Classifier") or ()
        if each.startswith("License ::")
    ]
    named = [each for each in named if each != "OSI Approved"]
    if named:
        return " AND ".join(sorted(set(named)))
    return str(found.get("License") or "").strip().split("\n")[0][:100]


def sha256(path: Path) -> str:
    """Of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(piece_bytes):
            digest.update(piece)
    return digest.hexdigest()


def file_component(path: Path, name: str) -> dict[str, Any]:
    """A shared library."""
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": sha256(path)}],
        "properties": [{"name": "penstock:bytes", "value": str(path.stat().st_size)}],
    }


def package_component(distribution: Distribution, base: Path, seen: set[Path]) -> dict[str, Any]:
    """A package with the shared libraries that it brought."""
    name, version = canonical(distribution.metadata["Name"]), distribution.version
    purl = f"pkg:pypi/{name}@{version}"
    libraries = []
    for entry in sorted(distribution.files or (), key=str):
        path = Path(str(distribution.locate_file(entry))).resolve()
        if shared.search(path.name) and path.is_file() and path not in seen:
            seen.add(path)
            libraries.append(file_component(path, shown(path, base)))
    said = licence(distribution)
    return {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        **({"licenses": [{"license": {"name": said}}]} if said else {}),
        **({"components": libraries} if libraries else {}),
    }  # fmt: skip


def shown(path: Path, base: Path) -> str:
    """A path below the environment, the same on every machine."""
    return str(path.relative_to(base)) if path.is_relative_to(base) else path.name


def loose_libraries(folders: list[Path], base: Path, seen: set[Path]) -> Iterator[dict[str, Any]]:
    """Shared libraries that no package says it brought: those of an editable installation, for one."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            resolved = path.resolve()
            if shared.search(path.name) and resolved.is_file() and resolved not in seen:
                seen.add(resolved)
                yield file_component(resolved, shown(path, base))


def image_libraries(root: Path, base: Path) -> Iterator[dict[str, Any]]:
    """Shared libraries of an image beside those of its environment: the interpreter's and the system's, by their places in it."""
    environment = root / base.relative_to("/")
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.is_relative_to(environment):
            continue
        with path.open("rb") as file:
            if shared.search(path.name) and file.read(4) == b"\x7fELF":
                yield file_component(path, f"/{path.relative_to(root)}")


def bill(root: Path | None = None) -> dict[str, Any]:
    """The whole document, of the environment that runs this, and of the image that holds it where there is one."""
    base = Path(sys.prefix).resolve()
    found = {canonical(each.metadata["Name"]): each for each in distributions() if each.metadata["Name"]}
    seen: set[Path] = set()
    packages = [package_component(found[name], base, seen) for name in sorted(found)]
    import penstock  # its modules lie in the clone where it is installed in place

    ours = Path(penstock.__file__).resolve().parents[1] / "engine" / "native"
    folders = [
        Path(sysconfig.get_paths()["purelib"]),
        Path(sysconfig.get_paths()["platlib"]),
        *([ours] if ours.is_dir() else []),
    ]
    loose = list(loose_libraries(folders, base, seen))
    if root is not None:
        loose += image_libraries(root, base)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "penstock",
                "name": "penstock",
                "version": penstock.__version__,
            },
            "properties": [{"name": "penstock:python", "value": ".".join(map(str, sys.version_info[:3]))}],
        },
        "components": [*packages, *loose],
    }


def refused(document: dict[str, Any], allowed: set[str]) -> list[str]:
    """Packages whose licence is not among those allowed; a line `name: licence` in the file allows that package alone."""
    faults = []
    for each in document["components"]:
        if each["type"] != "library" or each["name"] == "penstock-streaming":
            continue
        said = each["licenses"][0]["license"]["name"] if "licenses" in each else "none"
        if said not in allowed and f"{each['name']}: {said}" not in allowed:
            faults.append(f"{each['name']}: {said}")
    return faults


def main() -> int:
    """Write it; 1 for a licence that is not allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--licences", type=Path, help="allowed licences, one a line")
    parser.add_argument("--root", type=Path, help="folder with the image's files")
    arguments = parser.parse_args()
    document = bill(arguments.root)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    files = sum(each["type"] == "file" for each in document["components"])
    files += sum(len(each.get("components", ())) for each in document["components"])
    sys.stdout.write(f"{arguments.out}: {len(document['components'])} components, {files} shared libraries\n")
    if arguments.licences is None:
        return 0
    lines = [
        line.split("#")[0].strip() for line in arguments.licences.read_text(encoding="utf-8").splitlines()
    ]
    faults = refused(document, {line for line in lines if line})
    for fault in faults:
        sys.stderr.write(f"{fault} is not in {arguments.licences}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
