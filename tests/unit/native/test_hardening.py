"""What the native modules are built with, read off the files that are loaded."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.engine.native import _avro, _trees

modules = [Path(module.__file__ or "") for module in (_avro, _trees)]

load, dynamic, gnu_stack, gnu_relro, gnu_property = 1, 2, 0x6474E551, 0x6474E552, 0x6474E553
needed_flags, flags_1, text_rel, rpath, run_path, string_table, symbol_table = (
    30,
    0x6FFFFFFB,
    22,
    15,
    29,
    5,
    6,
)
x86_feature = 0xC0000002


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

    def imports(self) -> Iterator[str]:
        """Names of dynamic symbols that others define; the string table follows the symbols, as linkers lay them out."""
        found = self.dynamic()
        names, first = self.place(found[string_table]), self.place(found[symbol_table])
        for at in range(first, names, 24):
            name, _, _, section = struct.unpack_from("<IBBH", self.data, at)
            if section == 0 and name:
                yield self.data[names + name : self.data.index(b"\0", names + name)].decode()

    def x86_features(self) -> int:
        segment = self.one(gnu_property)
        assert segment is not None
        at, end = segment[2] + 16, segment[2] + segment[5]
        while at < end:
            kind, size = struct.unpack_from("<II", self.data, at)
            if kind == x86_feature:
                return int(struct.unpack_from("<I", self.data, at + 8)[0])
            at += 8 + (size + 7) // 8 * 8
        return 0


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
    names = set(elf.imports())
    assert "__stack_chk_fail" in names
    assert any(name.endswith("_chk") and name != "__stack_chk_fail" for name in names), sorted(names)


def test_jumps_lead_only_to_where_jumps_may_lead(elf: Elf) -> None:
    if elf.machine != 62:
        pytest.skip("another processor than x86-64")
    assert elf.x86_features() & 3 == 3  # indirect branches, shadow stacks
