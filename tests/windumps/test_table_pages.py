"""Pages that page tables take, of all levels and all processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.kernel_builder import PAGE, System, full

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.memory.table_pages import TablePages, count_table_pages


class Counting(System):
    """Knows which frames it took for tables."""

    def entry_at(self, address: int, level: int = -1, root: int | None = None) -> int:
        before = set(self.pages)
        place = super().entry_at(address, level, root)
        self.tables = getattr(self, "tables", set()) | (set(self.pages) - before)
        return place

    def new_root(self) -> int:
        before = set(self.pages)
        root = super().new_root()
        self.tables = getattr(self, "tables", set()) | (set(self.pages) - before)
        return root

    def share_kernel(self, root: int) -> None:
        if self.kind == "pae":  # its own directories of the kernel's half are let go
            self.tables -= {self.peek(root + 8 * number, 8) // PAGE for number in (2, 3)}
        super().share_kernel(root)


def _counted(system: System, folder: Path) -> TablePages:
    path = folder / "made.dmp"
    path.write_bytes(full(system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    assert dump.physical is not None
    assert dump.paging is not None
    roots = [p.directory_table_base & dump.paging.root_mask for p in dump.processes]
    return count_table_pages(dump.physical, dump.paging, roots)


@pytest.mark.parametrize("kind", ["x64", "la57", "arm64", "pae", "x86"])
def test_every_table_counts_once(kind: str, tmp_path: Path) -> None:
    system = Counting(kind)
    assert _counted(system, tmp_path) == TablePages(len(system.tables), 0)
    before = len(system.tables)
    root = system.processes[1][3]
    for number in range(8):  # far apart: a leaf table each
        system.write(0x1000_0000 + number * 0x40_0000, b"x", root)
    assert len(system.tables) >= before + 8
    found = _counted(system, tmp_path)
    assert found == TablePages(len(system.tables), 0)
    assert found.bytes == len(system.tables) * PAGE


def test_tables_that_are_not_in_the_dump_make_the_figure_unknown(tmp_path: Path) -> None:
    system = Counting("x64")
    root = system.processes[1][3]
    system.write(0x1000_0000, b"x", root)
    above = system.entry_at(0x1000_0000, level=2, root=root) // PAGE
    del system.pages[above]
    found = _counted(system, tmp_path)
    assert (found.absent, found.bytes) == (1, None)


def test_a_root_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    system = Counting("x64")
    system.poke(system.root + 8 * 0x1ED, system.root | 0x63, 8)
    assert _counted(system, tmp_path) == TablePages(len(system.tables), 0)
