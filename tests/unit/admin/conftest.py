"""Admin ports and tokens for them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.admin.open_port import Port, boss, operator, viewer


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Port]]:
    with ExitStack() as held:
        yield lambda **settings: Port(tmp_path, settings, held)


@pytest.fixture
def tokens(tmp_path: Path) -> list[dict[str, Any]]:
    made = []
    for name, role, token in (
        ("vera", "viewer", viewer),
        ("otto", "operator", operator),
        ("ada", "admin", boss),
    ):
        file = tmp_path / f"{name}.token"
        file.write_text(f"{token}\n")
        made.append({"name": name, "role": role, "file": str(file)})
    return made
