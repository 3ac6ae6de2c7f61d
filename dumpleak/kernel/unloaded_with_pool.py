"""Bug check C4 with 60, 61 or 62: Driver Verifier stopped the system since a driver left pool behind.

The parameters are Microsoft's ("Bug Check 0xC4"). Of 62 the documentation says that the second is the
driver's name; that there is a UNICODE_STRING, as in the loader's entry, follows from addresses in published
crashes. A text that is no file name is not taken. Of 60 and 61 no parameter names the driver: it is the one
whose counters are those that the parameters tell, where there is exactly one.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from dumpleak.model.left_pool import UNLOADING, LeftPool, LeftTag
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.drivers import read_string
from windumps.pool_tags import tag_text
from windumps.pools.verifier.drivers import VerifiedDriver
from windumps.pools.verifier.records import VerifierData

_CODE, _BY_BYTES, _BY_NAME = 0xC4, (0x60, UNLOADING), 0x62
_MOST_BLOCKS = 1 << 32
_NAME = re.compile(r"[^\x00-\x1f\\/:*?\"<>|]{1,60}")


def left_pool(dump: KernelDump, data: VerifierData | None = None) -> LeftPool | None:
    """What the bug check says; None where it is another one, or there is none.

    Args:
        dump: The dump.
        data: What Verifier recorded, which may tell of the driver.
    """
    check = dump.bug_check
    if check is None or check.code & 0xFFFF != _CODE or len(check.parameters) != 4:
        return None
    reason, second, third, blocks = check.parameters
    if reason not in (*_BY_BYTES, _BY_NAME) or blocks >= _MOST_BLOCKS:
        return None
    if reason == _BY_NAME:
        found = LeftPool(reason, _name_at(dump, second), blocks)
    else:
        found = LeftPool(reason, "", blocks, second, third)
    if data is None:
        return found
    same = [driver.name for driver in data.drivers if _is_of(found, driver)]
    if not found.driver and len(same) == 1:
        found = replace(found, driver=same[0])
    return replace(found, tags=_tags(data, found.driver))


def _tags(data: VerifierData, name: str) -> tuple[LeftTag, ...]:
    """A driver's blocks by tag, the most bytes first."""
    numbers = [n for n, driver in enumerate(data.drivers) if driver.name.lower() == name.lower()]
    mine = np.isin(data.driver, numbers)
    tags, number, count = np.unique(data.tag[mine], return_inverse=True, return_counts=True)
    held = np.zeros(len(tags), np.int64)
    np.add.at(held, number, data.size[mine])
    columns = tags.tolist(), count.tolist(), held.tolist()
    found = [LeftTag(tag_text(tag), *sums) for tag, *sums in zip(*columns, strict=True)]
    return tuple(sorted(found, key=lambda left: -left.bytes))


def _name_at(dump: KernelDump, address: int) -> str:
    """The file name in a UNICODE_STRING; "" where there is none."""
    pointer = dump.kernel.pointer_size
    raw = dump.memory.read_available(address, 2 * pointer) if address else b""
    if len(raw) != 2 * pointer:
        return ""
    name = read_string(dump.memory, raw, pointer).rpartition("\\")[2]
    return name if _NAME.fullmatch(name) and name.isprintable() and "." in name else ""


def _is_of(found: LeftPool, driver: VerifiedDriver) -> bool:
    """Whether a driver's counters are those of the bug check."""
    if driver.counted != found.blocks or driver.paged is None or driver.nonpaged is None:
        return False
    held = driver.paged.bytes, driver.nonpaged.bytes
    return found.paged_bytes is None or held == (found.paged_bytes, found.nonpaged_bytes)
