"""Bug check C4 with 60, 61 or 62: Driver Verifier stopped the system since a driver left pool behind.

The parameters are Microsoft's ("Bug Check 0xC4"). Of 62 the documentation says that the second is the
driver's name; that there is a UNICODE_STRING, as in the loader's entry, follows from addresses in published
crashes. A text that is no file name is not taken. Of 60 and 61 no parameter names the driver: it is the one
whose counters are those that the parameters tell, where there is exactly one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.drivers import read_string
from windumps.pools.verifier.drivers import VerifiedDriver
from windumps.pools.verifier.records import VerifierData

_CODE, _BY_BYTES, _BY_NAME = 0xC4, (0x60, 0x61), 0x62
_MOST_BLOCKS = 1 << 32
_NAME = re.compile(r"[^\x00-\x1f\\/:*?\"<>|]{1,60}")


@dataclass(frozen=True)
class LeftPool:
    """What the bug check says.

    Attributes:
        reason: Its first parameter.
        driver: File name of the driver; "" when nothing tells.
        blocks: Blocks that were not freed.
        paged_bytes: Their bytes in paged pool; None where the bug check does not say.
        nonpaged_bytes: Their bytes in nonpaged pool; None where the bug check does not say.
    """

    reason: int
    driver: str
    blocks: int
    paged_bytes: int | None = None
    nonpaged_bytes: int | None = None

    @property
    def told(self) -> str:
        """A sentence."""
        whose = self.driver or "a driver that the bug check does not name"
        many = f"{self.blocks:,} block{'s' * (self.blocks != 1)}"
        did = "allocated pool while it was unloaded; it leaves" if self.reason == 0x61 else ""
        did = did or "was unloaded without freeing"
        return f"Bug check C4 ({self.reason:x}): {whose} {did} {many}"


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
    if found.driver or data is None:
        return found
    same = [driver.name for driver in data.drivers if _is_of(found, driver)]
    return replace(found, driver=same[0]) if len(same) == 1 else found


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
