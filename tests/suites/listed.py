"""Which tests of a suite the cases leave out: `python -m tests.suites.listed SUITE FOLDER`, where FOLDER holds the suite's tests."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.suites.cases import every


def tests_of(folder: Path) -> set[tuple[str, str]]:
    """Each test with its file, relative to the folder."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add((path.relative_to(folder).as_posix(), node.name))
    return found


def main(arguments: Sequence[str]) -> int:
    """Print what is left out, and what is named that is not there; 1 if there is any."""
    suite, folder = arguments
    named = {(case.file, test) for case in every() if case.suite == suite for test in case.tests}
    there = tests_of(Path(folder))
    for what, some in (("left out", there - named), ("not there", named - there)):
        for file, test in sorted(some):
            sys.stdout.write(f"{what}: {file} {test}\n")
    sys.stdout.write(f"{suite}: {len(there)} tests, {len(there & named)} named\n")
    return int(there != named)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
