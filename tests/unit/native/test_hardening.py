"""What the native modules are built with, read off the files that are loaded."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.engine.native import _avro, _trees

modules = [Path(module.__file__ or "") for module in (_avro, _trees)]

load, dynamic, gnu_stack, gnu_relro = 1, 2, 0x6474E551, 0x6474E552
needed_flags, flags_1, text_rel, rpath, run_path, string_table, symbol_table = (
    30,
    0x6FFFFFFB,
    22,
    15,
    29,
    5,
    6,
)
x86_64, endbr64 = 62, b"\xf3\x0f\x1e\xfa"


@dataclass
class Elf:
    """As much of a 64-bit little-endian file as is asked for."""

    data: bytes

    def __post_init__(self) -> None:
        assert self.data[:6] == b"\x7fELF\x02\x01"
        self.machine = struct.unpack_from("<H", self.data, 18)[0]
        (at,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        self.segments = [struct.unpack_from("<IIQQQQQQ", self.data, at + n * size) for n in range(count)]

    def one(self, kind: int) -> tuple[int, ...] | None:
        return next((each for each in self.segments if each[0] == kind), None)

    def dynamic(self) -> dict[int, int]:
        segment = self.one(dynamic)
        assert segment is not None
        pairs = struct.iter_unpack("<QQ", self.data[segment[2] : segment[2] + segment[5] // 16 * 16])
        return dict(pairs)

    def place(self, address: int) -> int:
        """Where in the file what is loaded there stands."""
        segment = next(s for s in self.segments if s[0] == load and s[3] <= address < s[3] + s[5])
        return address - segment[3] + segment[2]

    def symbols(self) -> Iterator[tuple[str, int, int]]:
        """Name, section (0: another file's) and address; the string table follows the symbols, as linkers lay them out."""
        found = self.dynamic()
        names, first = self.place(found[string_table]), self.place(found[symbol_table])
        for at in range(first, names, 24):
            name, _, _, section, address = struct.unpack_from("<IBBHQ", self.data, at)
            yield self.data[names + name : self.data.index(b"\0", names + name)].decode(), section, address

    def imports(self) -> set[str]:
        """Names that other files define."""
        return {name for name, section, _ in self.symbols() if name and not section}


@pytest.fixture(params=modules, ids=[each.name.split(".")[0] for each in modules])
def elf(request: pytest.FixtureRequest) -> Elf:
    found = Elf(request.param.read_bytes())
    if any("asan" in name for name in found.imports()):
        pytest.skip("built for the sanitizers")
    return found


def test_neither_stack_nor_any_segment_is_both_written_and_run(elf: Elf) -> None:
    stack = elf.one(gnu_stack)
    assert stack is not None
    assert not stack[1] & 1
    assert not any(kind == load and flags & 1 and flags & 2 for kind, flags, *_ in elf.segments)
    assert text_rel not in elf.dynamic()


def test_what_is_relocated_is_read_only_before_anything_runs(elf: Elf) -> None:
    assert elf.one(gnu_relro) is not None
    found = elf.dynamic()
    assert found.get(needed_flags, 0) & 0x8 or found.get(flags_1, 0) & 0x1  # BIND_NOW


def test_no_library_is_looked_for_in_a_folder_of_the_build_machine(elf: Elf) -> None:
    assert not {rpath, run_path} & elf.dynamic().keys()


def test_stacks_are_guarded_and_copies_are_checked(elf: Elf) -> None:
    names = elf.imports()
    assert "__stack_chk_fail" in names
    assert any(name.endswith("_chk") and name != "__stack_chk_fail" for name in names), sorted(names)


def test_functions_begin_with_the_mark_of_a_place_to_jump_to(elf: Elf) -> None:
    """Whether it is enforced is up to the C library and to the compiler's own start-up files, which not all systems build so."""
    if elf.machine != x86_64:
        pytest.skip("another processor than x86-64")
    (address,) = (
        address for name, section, address in elf.symbols() if name.startswith("PyInit_") and section
    )
    at = elf.place(address)
    assert elf.data[at : at + 4] == endbr64
