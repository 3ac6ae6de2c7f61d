"""Finds the tracker tables: by name where something names them, else by what they hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.layouts.pool import TRACKER_LAYOUTS
from windumps.layouts.rows import LayoutChoice, LayoutRow, choose_layout
from windumps.memory import AddressSpace
from windumps.pool_tags import is_printable
from windumps.pools.hash_slots import TAG_HASHES
from windumps.pools.image_words import KernelWords
from windumps.pools.trackers.table import (
    MIN_KEYS,
    SURE,
    TRACKER,
    is_table_size,
    read_keys,
    score_layout,
    table_size,
)

MAX_PROCESSORS = 2048  # length of ExPoolTagTables on the largest build
_NEAR = 0x100  # bytes around the variable where its neighbours are looked for
_DEFAULT_SIZE = 2049
_MAX_EXPANSION_BYTES = 16 << 20

Layout = LayoutChoice[float]


class TrackerTables(NamedTuple):
    """All tables of one kernel.

    Attributes:
        addresses: One a processor, the first processor's first.
        entry_count: Of each, "Ovfl" slot included.
        row: Their layout.
        is_whole: All processors' tables were found.
        source: How they were found, for people.
    """

    addresses: list[int]
    entry_count: int
    row: LayoutRow
    is_whole: bool
    source: str


def find_layout(kernel: Kernel, base: int) -> Layout | None:
    """The layout of the table at `base`; None when it is not in the dump or is no such table."""

    def score(row: LayoutRow) -> tuple[float, float] | None:
        result = score_layout(kernel.memory, row, base)
        return None if result is None else (result, result)

    choice = choose_layout(TRACKER_LAYOUTS, kernel.architecture, kernel.build, score)
    return choice if choice is not None and choice.score >= SURE / 2 else None


def tracker_table(kernel: Kernel, words: KernelWords, log: DiagnosticLog) -> int | None:
    """Address of the first processor's table."""
    base = kernel.value("PoolTrackTable")
    if base:
        return base
    found = _search(kernel, words)
    if found is not None:
        log.add(
            "trackers-searched",
            Severity.INFO,
            "PoolTrackTable",
            found,
            "the tracker table was found by what it holds; nothing names it in this dump",
        )
    return found


def _search(kernel: Kernel, words: KernelWords) -> int | None:
    """The table that the image points to and that obeys a layout; the most often pointed to."""
    found: list[tuple[int, int]] = []
    for base in _candidates(kernel, words).tolist():
        choice = find_layout(kernel, base)
        if choice is not None and choice.score >= SURE:
            # PoolTrackTable and ExPoolTagTables[0] both hold the first; others are held once.
            found.append((len(words.holding(base)), -base))
    return -max(found)[1] if found else None


def _candidates(kernel: Kernel, words: KernelWords) -> U64:
    """Tables that the image points to whose first entries have printable keys under some layout."""
    tables = words.tables()
    good = np.zeros(len(tables), np.bool_)
    index = np.arange(64, dtype=np.uint64)
    for row in TRACKER_LAYOUTS:
        if row.pointer_size != kernel.pointer_size:
            continue
        addresses = tables[:, None] + index * np.uint64(row.size(TRACKER))
        keys, _ = kernel.memory.gather(addresses, "<u4")
        used = keys != 0
        printable = (is_printable(keys) & used).sum(axis=1)
        good |= (printable >= MIN_KEYS) & (printable >= SURE * used.sum(axis=1))
    return tables[good]


def processor_tables(
    kernel: Kernel,
    words: KernelWords,
    base: int,
    choice: Layout,
    table_bytes: dict[int, int],
) -> TrackerTables:
    """All processors' tables, by ExPoolTagTables or an array that can only be it."""
    count, how = _entry_count(kernel, base, choice.row, table_bytes)
    named = kernel.find_symbol("ExPoolTagTables")
    places = [named.address] if named is not None else words.holding(base)
    best: list[int] = [base]
    whole = False
    for place in places:
        found, complete = _array(kernel, choice.row, base, count, place)
        if len(found) > len(best) or (complete and not whole and len(found) >= len(best)):
            best, whole = found, complete
    if kernel.processor_count == 1:
        whole = True
    source = f"{len(best)} table(s) of {count} entries"
    source += f" ({how}); processors' tables "
    if named is not None:
        source += f"from {named.detail}"
    else:
        source += "found by what they hold" if len(best) > 1 else "other than the first not found"
    return TrackerTables(best, count, choice.row, whole, source)


def _array(
    kernel: Kernel, row: LayoutRow, base: int, count: int, place: int
) -> tuple[list[int], bool]:
    """The tables an array at `place` names, and whether it names all processors'."""
    step = kernel.pointer_size
    raw = kernel.memory.read_available(place, MAX_PROCESSORS * step)
    pointers = np.frombuffer(raw[: len(raw) // step * step], f"<u{step}").tolist()
    if not pointers or pointers[0] != base:
        return [base], False
    keys, present = read_keys(kernel.memory, row, base, count)
    expected = kernel.processor_count
    found, gaps, unknown = [base], 0, False  # unknown: a table that should be there is not seen
    for number, pointer in enumerate(pointers[1:], 1):
        beyond = bool(expected) and number >= expected
        if pointer == 0:
            gaps += 1
            unknown |= not beyond
            if beyond or (not expected and gaps > 64):
                break
            continue
        is_one = pointer not in found and _is_sibling(
            kernel.memory, row, pointer, keys, present, is_extra=beyond or not expected
        )
        if not is_one:
            unknown |= not beyond
            if beyond or not expected:
                break
            continue
        found.append(pointer)
    enough = len(pointers) >= expected and not unknown
    # All null behind the first of several processors is no array of theirs.
    return found, enough and (expected <= 1 or len(found) > 1)


def _is_sibling(
    memory: AddressSpace,
    row: LayoutRow,
    address: int,
    keys: NDArray[np.uint32],
    present: NDArray[np.bool_],
    *,
    is_extra: bool,
) -> bool:
    """Has the same tags in the same slots, or none there yet.

    An expected table that is wholly absent is taken as one: its counters are then missing. One more
    than there are processors must prove itself.
    """
    others, there = read_keys(memory, row, address, len(keys))
    if not there.any():
        return not is_extra and address % PAGE_SIZE == 0
    both = there & present & (others != 0) & (keys != 0)
    alone = there & present & (others != 0) & (keys == 0)
    if not both.any():
        return not is_extra and not alone.any() and address % PAGE_SIZE == 0
    return float((others[both] == keys[both]).mean()) >= SURE and int(alone.sum()) <= int(
        (1 - SURE) * len(keys)
    )


def _entry_count(
    kernel: Kernel, base: int, row: LayoutRow, table_bytes: dict[int, int]
) -> tuple[int, str]:
    """Entries of each table and how that is known."""
    named = kernel.find_symbol("PoolTrackTableSize")
    value = kernel.value("PoolTrackTableSize")
    if named is not None and value is not None and is_table_size(value):
        return value, f"size from {named.detail}"
    placed = table_size(kernel.memory, row, base)
    if placed is not None:
        return placed, "size by the hash rule"
    if base in table_bytes:
        entries = table_bytes[base] // row.size(TRACKER)
        size = (1 << max((entries - 1).bit_length() - 1, 0)) + 1
        if is_table_size(size):
            return size, "size by the table's own allocation"
    near = _size_nearby(kernel)
    if near is not None:
        return near, "size from a variable beside PoolTrackTable"
    return _DEFAULT_SIZE, "size not known, the default taken"


def _size_nearby(kernel: Kernel) -> int | None:
    """PoolTrackTableSize or …Mask among the variables around PoolTrackTable, the nearest first."""
    variable = kernel.symbol("PoolTrackTable")
    if variable is None:
        return None
    step = kernel.pointer_size
    for distance in range(step, _NEAR, step):
        for place in (variable - distance, variable + distance):
            try:
                value = kernel.memory.read_uint(place, step)
            except MemoryReadError:
                continue
            if is_table_size(value):
                return value
            if is_table_size(value + 2):
                return value + 2
    return None


def expansion_table(
    kernel: Kernel,
    words: KernelWords,
    tables: TrackerTables,
    table_bytes: dict[int, int],
    log: DiagnosticLog,
) -> tuple[int, int] | None:
    """(address, entries) of the shared table of tags without a slot; None when there is none."""
    step = tables.row.size(TRACKER)
    base = kernel.value("PoolTrackTableExpansion")
    if kernel.find_symbol("PoolTrackTableExpansion") is not None and base is not None:
        size = kernel.value("PoolTrackTableExpansionSize")
        if not base:
            return None
        if size is None or not 0 < size * step <= _MAX_EXPANSION_BYTES:
            size = table_bytes.get(base, PAGE_SIZE) // step
        return base, size
    found = _expansion_candidates(kernel, words, tables).tolist()
    # The table is an allocation of the pool's own, which its table of large ones names.
    found.sort(key=lambda address: address not in table_bytes)
    if not found:
        return None
    address = found[0]
    log.add(
        "expansion-searched",
        Severity.INFO if len(found) == 1 else Severity.WARNING,
        "PoolTrackTableExpansion",
        address,
        "the table of tags without a slot was found by what it holds"
        + ("" if len(found) == 1 else f"; {len(found) - 1} more could be it and are left out"),
    )
    return address, table_bytes.get(address, 0) // step or _run_length(kernel, tables.row, address)


def _expansion_candidates(kernel: Kernel, words: KernelWords, tables: TrackerTables) -> U64:
    """Tables the image points to that are filled from the front with tags no other table has."""
    memory, row = kernel.memory, tables.row
    keys, present = read_keys(memory, row, tables.addresses[0], tables.entry_count)
    known = keys[keys != 0]
    good = []
    for address in _candidates(kernel, words).tolist():
        if address in tables.addresses:
            continue
        length = _run_length(kernel, row, address)
        if not length:
            continue
        own, _ = read_keys(memory, row, address, length)
        fresh = is_printable(own).all() and not np.isin(own, known).any()
        mask = tables.entry_count - 2
        # A tag without a slot must find the table full from its home on, as far as the kernel looks.
        full = max(
            float(((keys[homes] != 0) | ~present[homes]).mean())
            for homes in (hashed(own, mask) for hashed in TAG_HASHES)
        )
        if fresh and len(np.unique(own)) == length and full >= SURE:
            good.append(address)
    return np.array(good, np.uint64)


def _run_length(kernel: Kernel, row: LayoutRow, address: int) -> int:
    """Entries before the first without a key."""
    keys, present = read_keys(
        kernel.memory, row, address, _MAX_EXPANSION_BYTES // row.size(TRACKER) // 16
    )
    end = np.flatnonzero((keys == 0) | ~present)
    return int(end[0]) if len(end) else len(keys)
