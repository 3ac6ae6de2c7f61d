"""`--of regions --by owner`: who points to memory outside heaps, told without symbols and addresses."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.process_builder import (
    COMMIT,
    EXECUTE_READ,
    MAPPED,
    PAGE,
    PRIVATE,
    READ_WRITE,
    ProcessBuilder,
)

DATA = 5 * PAGE  # of an image of the builder
DATA_BYTES = 3 * PAGE
SIZE = 0x30000
OWNER = "--of", "regions", "--by", "owner"
NOBODY = "private memory, nothing in the dump points to it"


class _Owned:
    """A process with allocations of `SIZE`, and words anywhere."""

    def __init__(self, count: int = 1, *, shift: int = 0, time: int = 0, **how: Any) -> None:
        self.process = ProcessBuilder(time, shift, **how)
        for name in ("app.exe", "work.dll", "more.dll"):
            self.process.image(name)
        self.process.heap(1, 5).thread(self.process.bases["work.dll"] + 0x1100, 2)
        self.allocations = [self.allocation() for _ in range(count)]
        self.words: dict[str, list[int]] = {name: [] for name in self.process.bases}

    def allocation(
        self, size: int = SIZE, kind: int = PRIVATE, protect: int = READ_WRITE, fill: bytes = b""
    ) -> int:
        """Another one; gives where it begins."""
        known = {row.allocation for row in self.process.rows}
        make = {PRIVATE: self.process.private, MAPPED: self.process.views}[kind]
        make(1, size, protect=protect)
        start = next(row.allocation for row in self.process.rows if row.allocation not in known)
        if fill:
            self.process.dump.memory(start, fill)
        return start

    def data(self, **words: list[int]) -> _Owned:
        """Words in the data of images, `app=[…]`."""
        for name, values in words.items():
            full = next(image for image in self.words if image.startswith(f"{name}."))
            self.words[full] += values
        return self

    def write(self, file: Path, without: tuple[str, ...] = (), *, whole: bool = False) -> Path:
        """The dump, without the data of some images; `whole` with all of the images."""
        for name, words in self.words.items():
            if name not in without:
                content = struct.pack(f"<{len(words)}Q", *words).ljust(DATA_BYTES, b"\0")
                at = self.process.bases[name] + DATA
                self.process.dump.memory(at - DATA * whole, bytes(DATA * whole) + content)
        file.write_bytes(self.process.build())
        return file


def _packed(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words)


@pytest.fixture
def owners(run: Any) -> Callable[..., dict[str, tuple[int, int]]]:
    """The groups of a dump: name → (members, bytes)."""

    def _owners(file: Path) -> dict[str, tuple[int, int]]:
        status, out, err = run("stat", file, *OWNER, "--format", "json")
        assert status == 0, err
        found = json.loads(out)
        assert sum(g["used_count"] for g in found["groups"]) == found["totals"]["used_count"]
        return {g["name"]: (g["used_count"], g["used_bytes"]) for g in found["groups"]}

    return _owners


Owners = Callable[[Path], dict[str, tuple[int, int]]]


def test_a_region_is_named_by_the_image_whose_data_points_to_it(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned(3)
    first, second, third = made.allocations
    made.data(app=[first, second + 0x40])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, app.exe's data points to it"] == (2, 2 * SIZE)
    nobodys = found[NOBODY][1]
    made = _Owned(3).data(app=[first, second, third])
    assert owners(made.write(tmp_path / "b.dmp")).get(NOBODY, (0, 0))[1] == nobodys - SIZE


def test_two_images_are_named_with_most_pointers_first_and_further_ones_counted(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned(2)
    first, second = made.allocations
    made.data(app=[first, second], work=[first] * 3 + [second] * 2, more=[second])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, data of work.dll and app.exe points to it"] == (1, SIZE)
    more = "private memory, data of work.dll, app.exe and more images points to it"
    assert found[more] == (1, SIZE)


def test_pointers_to_the_start_of_a_region_count_before_those_into_it(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned(1)
    start = made.allocations[0]
    made.data(app=[start], work=[start + 0x100, start + 0x200])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, app.exe's data points to it"] == (1, SIZE)


def test_memory_that_leads_on_belongs_to_the_image_at_its_beginning(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned()
    last = made.allocation(0x50000)
    middle = made.allocation(0x60000, fill=_packed(0, last))
    made.data(app=[made.allocation(0x70000, fill=_packed(middle))])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, app.exe's data points to it"] == (1, 0x70000)
    assert found["private memory, app.exe's data leads to it"] == (2, 0x50000 + 0x60000)


def test_what_leads_on_is_told_by_the_best_evidence_at_its_beginning(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned()
    last = made.allocation(0x50000)
    middle = made.allocation(0x60000, fill=_packed(last))
    both = made.allocation(0x70000, fill=_packed(made.allocation(0x80000)))
    made.process.heap(1, 1, _packed(middle, both))
    other = made.allocation(0x90000, fill=_packed(both))
    made.data(app=[other])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, a heap block points to it"] == (2, 0x60000 + 0x70000)
    assert found["private memory, a heap block leads to it"] == (2, 0x50000 + 0x80000)
    assert found["private memory, app.exe's data points to it"] == (1, 0x90000)


def test_memory_that_only_itself_or_a_circle_points_to_is_no_images(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned(1)
    own = made.allocation(0x50000)
    made.process.dump.memory(own, _packed(own, own + 0x800))
    one, other = made.allocation(0x60000), made.allocation(0x60000)
    made.process.dump.memory(one, _packed(other))
    made.process.dump.memory(other, _packed(one))
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, other memory outside heaps points to it"] == (2, 2 * 0x60000)
    assert found[NOBODY][1] >= 0x50000 + SIZE


def test_a_heap_block_a_stack_and_a_thread_block_are_told_apart(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned(2)
    by_block, by_stack = made.allocations
    rows = [row for row in made.process.rows if row.kind == PRIVATE and row.state == COMMIT]
    stack = next(row for row in rows if row.size == 2 * PAGE and row.allocation != row.base)
    made.process.heap(1, 1, _packed(0, by_block))
    made.process.dump.overwrite(stack.base + 0x800, _packed(by_stack))
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, a heap block points to it"] == (1, SIZE)
    began = "private memory, only the stack of a thread that began at work.dll+0x1100 points to it"
    assert found[began] == (1, SIZE)


def test_code_in_private_memory_and_mapped_views_say_whose_they_are(
    owners: Owners, tmp_path: Path
) -> None:
    made = _Owned(1)
    made.process.image("coreclr.dll")
    made.words["coreclr.dll"] = []
    code = made.allocation(0x50000, protect=EXECUTE_READ)
    compiled = made.allocation(0x60000, protect=EXECUTE_READ)
    view = made.allocation(0x70000, MAPPED, READ_WRITE)
    made.data(app=[code], coreclr=[compiled], work=[view])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private code, app.exe's data points to it"] == (1, 0x50000)
    assert found["private code of .NET, coreclr.dll's data points to it"] == (1, 0x60000)
    assert found["mapped memory, work.dll's data points to it"] == (1, 0x70000)


def test_below_4_gib_only_the_start_of_a_region_is_taken_for_an_address(
    owners: Owners, run: Any, tmp_path: Path
) -> None:
    made = _Owned(1, wow64=True)
    for at, size in ((0x2345_0000, 0x50000), (0x2445_0000, 0x60000)):
        made.process._row(at, size, COMMIT, READ_WRITE, PRIVATE, at)
    made.data(app=[0x2345_0000 | 0x2445_1000 << 32])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, app.exe's data points to it"] == (1, 0x50000)
    assert found["private memory, nothing in the dump points to its start"][1] >= 0x60000
    out = run("stat", tmp_path / "a.dmp", *OWNER)[1]
    assert "below 4 GiB, where numbers look like addresses" in out


@pytest.mark.parametrize(("offset", "is_found"), [(0x20_0000_0000, False), (0x4F000, True)])
def test_numbers_that_are_addresses_in_what_is_only_reserved_name_nobody(
    owners: Owners, tmp_path: Path, offset: int, is_found: bool
) -> None:
    made = _Owned()
    made.process.private(1, 0x50000, 0x40_0000_0000)
    made.data(app=[made.process.rows[-2].base + offset])
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found.get("private memory, app.exe's data points to it") == (
        (1, 0x50000) if is_found else None
    )


def test_owners_of_two_runs_at_other_addresses_are_the_same_groups(
    run: Any, tmp_path: Path
) -> None:
    files = []
    for hour in range(2):
        made = _Owned(2 + 3 * hour, shift=0x123_0000 * hour, time=3600 * hour)
        owned = made.allocations[:-1]
        made.data(app=owned, work=owned[: 1 + hour] * (1 + 2 * hour))
        files.append(made.write(tmp_path / f"{hour}.dmp"))
    status, out, err = run("diff", *files, *OWNER, "--format", "json")
    assert status == 0, err
    grown = {site["name"]: site["delta_count"] for site in json.loads(out)["sites"]}
    assert grown == {
        "private memory, app.exe's data points to it": 2,
        "private memory, data of work.dll and app.exe points to it": 1,
    }


def test_a_snapshot_file_tells_owners_as_its_dump_does(run: Any, tmp_path: Path) -> None:
    made = _Owned(2)
    made.data(app=made.allocations[:1])
    dump, taken = made.write(tmp_path / "a.dmp"), tmp_path / "a.dlsnap"
    assert run("snapshot", dump, "-o", taken)[0] == 0
    told = [run("stat", file, *OWNER, "--format", "json") for file in (dump, taken)]
    first, second = (json.loads(out)["groups"] for _, out, _ in told)
    assert first == second
    bare = tmp_path / "bare.dlsnap"
    assert run("snapshot", dump, "-o", bare, "--no-holders")[0] == 0
    status, _, err = run("stat", bare, *OWNER)
    assert (status, "whose regions are was not looked for" in err) == (3, True)


def test_without_the_data_of_most_images_nobody_is_named(run: Any, tmp_path: Path) -> None:
    made = _Owned(1)
    made.data(app=made.allocations)
    file = made.write(tmp_path / "a.dmp", without=("app.exe", "work.dll"))
    status, _, err = run("stat", file, *OWNER)
    assert status == 3
    assert "whose regions are is not known: of 36.0 KiB of the images' data 12.0 KiB are" in err


def test_data_of_one_image_that_is_not_in_the_dump_is_said(run: Any, tmp_path: Path) -> None:
    made = _Owned(1)
    made.data(app=made.allocations)
    file = made.write(tmp_path / "a.dmp", without=("work.dll",))
    status, out, _ = run("stat", file, *OWNER)
    assert status == 0
    assert "12.0 KiB of the images' data could not be looked at" in out


def _pair(folder: Path, **how: Any) -> list[Path]:
    """Two dumps; 16 MiB of private memory came between them, and app.exe points to most of it."""
    files = []
    for hour in range(2):
        made = _Owned(1, time=3600 * hour, shift=0x100_0000 * hour)
        made.process.dump.memory(made.allocations[0], bytes(SIZE))
        large = [made.allocation(0x40_0000, fill=bytes(0x40_0000)) for _ in range(4 * hour)]
        made.data(app=large[: how.get("held", 3)], work=made.allocations)
        files.append(made.write(folder / f"{hour}.dmp", whole=True))
    return files


def test_what_holds_the_private_memory_that_grew_is_in_the_headline(
    run: Any, tmp_path: Path
) -> None:
    files = _pair(tmp_path)
    status, out, err = run("diff", *files)
    assert status == 0, err
    assert out.startswith("+16.0 MiB private memory outside heaps, held by app.exe's data. ")
    assert "Holders" in out
    assert "3 of 4 held by app.exe's data, 1 of 4 unreferenced" in out.replace("; ", ", ")
    _, out, _ = run("diff", *files, "--format", "json")
    evidence = json.loads(out)["private"][0]["evidence"]
    assert {"3 of 4 held by app.exe's data", "1 of 4 unreferenced"} <= set(evidence)
    status, out, _ = run("diff", *files, "--no-holders")
    assert out.startswith("+16.0 MiB private memory outside heaps. ")


def test_private_memory_that_nothing_points_to_is_called_that(run: Any, tmp_path: Path) -> None:
    out = run("diff", *_pair(tmp_path, held=0))[1]
    assert out.startswith("+16.0 MiB private memory outside heaps that nothing points to. ")


def test_nothing_is_called_unreferenced_where_much_memory_is_not_in_the_dump(
    run: Any, tmp_path: Path
) -> None:
    files = []
    for hour in range(2):
        made = _Owned(1 + 5 * hour, time=3600 * hour)
        made.allocation(0x200_0000 * hour or SIZE)
        files.append(made.write(tmp_path / f"{hour}.dmp"))
    out = run("diff", *files)[1]
    assert out.startswith("+32.8 MiB private memory outside heaps. ")
    assert "unreferenced" not in out


def test_snapshot_files_keep_what_holds_private_memory(run: Any, tmp_path: Path) -> None:
    taken = [tmp_path / f"{hour}.dlsnap" for hour in range(2)]
    for dump, file in zip(_pair(tmp_path), taken, strict=True):
        assert run("snapshot", dump, "-o", file)[0] == 0
    out = run("diff", *taken)[1]
    assert out.startswith("+16.0 MiB private memory outside heaps, held by app.exe's data. ")


def test_the_next_step_for_private_memory_by_owner_records_virtual_alloc(
    run: Any, tmp_path: Path
) -> None:
    out = run("diff", *_pair(tmp_path), *OWNER)[1]
    assert "wpr -start VirtualAllocation -filemode" in out


def test_a_trend_says_what_holds_private_memory_that_grew(run: Any, tmp_path: Path) -> None:
    files = []
    for hour in range(3):
        made = _Owned(1, time=3600 * hour)
        large = [made.allocation(0x40_0000) for _ in range(4 * hour)]
        files.append(made.data(app=large).write(tmp_path / f"{hour}.dmp"))
    status, out, err = run("trend", *files)
    assert status == 0, err
    assert "8 of 8 held by app.exe's data" in out
    _, out, _ = run("trend", *files, "--format", "json")
    assert "8 of 8 held by app.exe's data" in json.loads(out)["private"][0]["evidence"]


def test_a_snapshot_without_names_keeps_no_owners(run: Any, tmp_path: Path) -> None:
    dumps = _pair(tmp_path)
    taken = [tmp_path / f"{hour}.dlsnap" for hour in range(2)]
    for dump, file in zip(dumps, taken, strict=True):
        assert run("snapshot", dump, "-o", file, "--strip-names")[0] == 0
        assert b"app.exe" not in file.read_bytes()
    status, _, err = run("stat", taken[0], *OWNER)
    assert (status, "whose regions are was not looked for" in err) == (3, True)
    for sides in (taken, [taken[0], dumps[1]], [dumps[0], taken[1]]):
        status, out, _ = run("diff", *sides)
        assert status == 0
        assert "app.exe" not in out


def test_memory_up_to_the_last_address_of_all_is_no_trouble(owners: Owners, tmp_path: Path) -> None:
    made = _Owned(1)
    made.data(app=made.allocations)
    made.process.dump.memory((1 << 64) - PAGE, bytes(PAGE))
    found = owners(made.write(tmp_path / "a.dmp"))
    assert found["private memory, app.exe's data points to it"] == (1, SIZE)


def test_regions_by_use_lead_to_their_owners(run: Any, tmp_path: Path) -> None:
    step = "dumpleak diff BASE CURRENT --of regions --by owner"
    files = _pair(tmp_path)
    assert step in run("diff", *files, "--of", "regions")[1]
    assert step not in run("diff", *files, *OWNER)[1]
