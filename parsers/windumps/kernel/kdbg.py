"""KDBG (`_KDDEBUGGER_DATA64`): where the kernel tells debuggers where its variables are.

The same on 32 and 64 bits. Nearly every field is the address of a kernel variable, not its value.

Since Windows 8 a 64-bit kernel keeps it encoded unless a debugger was attached at boot; a crash
decodes it first, a raw image of memory has it encoded. Each qword is encoded as

    e = rotr(byteswap(d ^ KiWaitAlways) ^ A, r) ^ KiWaitNever        r = KiWaitNever mod 64

with A the address of a flag. Byteswap, rotation and XOR are linear, so for decoding the three
constants come down to one rotation and one mask: d = byteswap(rotl(e, r)) ^ K. As the tag, and the
kernel base behind it, are known, both follow from the block itself: no symbols, no search for code.

Sources: `wdbgexts.h` as published in volatility, kdmp-parser and QEMU's elf2dmp, which agree up to
0x380; the tail is checked on two public dumps (19041, 22000) only as far as they go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windumps.arrays import U64
from windumps.memory import AddressSpace

TAG = b"KDBG"
TAG_OFFSET = 0x10
MIN_SIZE = 0x208  # XP has 0x290, of Windows 2000 nothing is asked here
SCAN_BYTES = 4 << 20
MAX_SIZE = 0x600  # 0x3a0 is the largest seen
KNOWN_SIZES = (0x290, 0x318, 0x328, 0x330, 0x340, 0x360, 0x368, 0x370, 0x380, 0x388, 0x390, 0x3A0)

# Names in order; eight bytes each unless said. "" is a gap.
_POINTERS: tuple[tuple[int, str], ...] = (
    (0x18, "KernBase BreakpointWithStatus SavedContext"),
    (0x38, "KiCallUserMode KeUserCallbackDispatcher PsLoadedModuleList PsActiveProcessHead"),
    (0x58, "PspCidTable ExpSystemResourcesList ExpPagedPoolDescriptor ExpNumberOfPagedPools"),
    (0x78, "KeTimeIncrement KeBugCheckCallbackListHead KiBugcheckData IopErrorLogListHead"),
    (0x98, "ObpRootDirectoryObject ObpTypeObjectType MmSystemCacheStart MmSystemCacheEnd"),
    (0xB8, "MmSystemCacheWs MmPfnDatabase MmSystemPtesStart MmSystemPtesEnd MmSubsectionBase"),
    (0xE0, "MmNumberOfPagingFiles MmLowestPhysicalPage MmHighestPhysicalPage"),
    (0xF8, "MmNumberOfPhysicalPages MmMaximumNonPagedPoolInBytes MmNonPagedSystemStart"),
    (0x110, "MmNonPagedPoolStart MmNonPagedPoolEnd MmPagedPoolStart MmPagedPoolEnd"),
    (0x130, "MmPagedPoolInformation MmPageSize MmSizeOfPagedPoolInBytes MmTotalCommitLimit"),
    (0x150, "MmTotalCommittedPages MmSharedCommit MmDriverCommit MmProcessCommit"),
    (0x170, "MmPagedPoolCommit MmExtendedCommit MmZeroedPageListHead MmFreePageListHead"),
    (0x190, "MmStandbyPageListHead MmModifiedPageListHead MmModifiedNoWritePageListHead"),
    (0x1A8, "MmAvailablePages MmResidentAvailablePages PoolTrackTable NonPagedPoolDescriptor"),
    (0x1C8, "MmHighestUserAddress MmSystemRangeStart MmUserProbeAddress"),
    (0x1E0, "KdPrintCircularBuffer KdPrintCircularBufferEnd KdPrintWritePointer"),
    (0x1F8, "KdPrintRolloverCount MmLoadedUserImageList NtBuildLab KiNormalSystemCall"),
    (0x218, "KiProcessorBlock MmUnloadedDrivers MmLastUnloadedDriver MmTriageActionTaken"),
    (0x238, "MmSpecialPoolTag KernelVerifier MmVerifierData MmAllocatedNonPagedPool"),
    (0x258, "MmPeakCommitment MmTotalCommitLimitMaximum CmNtCSDVersion MmPhysicalMemoryBlock"),
    (0x278, "MmSessionBase MmSessionSize MmSystemParentTablePage MmVirtualTranslationBase"),
    (0x2C8, "KdPrintCircularBufferPtr KdPrintBufferSize KeLoaderBlock"),
    (0x308, "IopNumTriageDumpDataBlocks IopTriageDumpDataBlocks VfCrashDataBlock"),
    (0x320, "MmBadPagesDetected MmZeroedPageSingleBitErrorsDetected EtwpDebuggerData"),
    (0x360, "PteBase"),
)
_SHORTS: tuple[tuple[int, str], ...] = (
    (0x298, "OffsetKThreadNextProcessor OffsetKThreadTeb OffsetKThreadKernelStack"),
    (0x29E, "OffsetKThreadInitialStack OffsetKThreadApcProcess OffsetKThreadState"),
    (0x2A8, "SizeEProcess OffsetEprocessPeb OffsetEprocessParentCID"),
    (0x2AE, "OffsetEprocessDirectoryTableBase SizePrcb"),
)
# Fields that are values, not addresses; the shorts are, too.
VALUES = frozenset({"KernBase", "MmPageSize", "PteBase"})


def _fields() -> dict[str, tuple[int, int]]:
    found = {}
    for table, size in ((_POINTERS, 8), (_SHORTS, 2)):
        for offset, names in table:
            for number, name in enumerate(names.split()):
                found[name] = (offset + number * size, size)
    return found


FIELDS: dict[str, tuple[int, int]] = _fields()


@dataclass(frozen=True)
class Kdbg:
    """One decoded block.

    Attributes:
        address: Where it is; 0 for a copy a triage dump keeps elsewhere.
        raw: Its bytes, decoded.
        pointer_mask: What an address keeps: 32-bit systems store addresses sign-extended.
        source: How it was found, for people.
        was_encoded: It was encoded in memory.
    """

    address: int
    raw: bytes
    pointer_mask: int
    source: str
    was_encoded: bool = False

    def value(self, name: str) -> int:
        """A field as stored, addresses cut to the machine's width; 0 beyond the block's size."""
        offset, size = FIELDS[name]
        return int.from_bytes(self.raw[offset : offset + size], "little") & self.pointer_mask

    @property
    def kernel_base(self) -> int:
        """Where the kernel's image is loaded."""
        return self.value("KernBase")


def parse(raw: bytes, address: int, source: str, *, is_32bit: bool) -> Kdbg | None:
    """A block that is not encoded; None when `raw` is none, or not all of it."""
    size = int.from_bytes(raw[TAG_OFFSET + 4 : TAG_OFFSET + 8], "little")
    if raw[TAG_OFFSET : TAG_OFFSET + 4] != TAG or not MIN_SIZE <= size <= min(MAX_SIZE, len(raw)):
        return None
    return Kdbg(address, raw[:size], 0xFFFF_FFFF if is_32bit else (1 << 64) - 1, source)


def is_at(memory: AddressSpace, address: int) -> bool:
    """A block that is not encoded lies at an address."""
    return bool(address) and memory.read_available(address + TAG_OFFSET, len(TAG)) == TAG


def read(
    memory: AddressSpace, address: int, kernel_base: int, source: str, *, is_32bit: bool
) -> Kdbg | None:
    """Reads the block at an address, plain or encoded.

    Args:
        memory: Kernel memory.
        address: Where it should be.
        is_32bit: Of the kernel; only 64-bit ones encode.
        kernel_base: Where the kernel is, 0 when unknown; an encoded block cannot be read without.
        source: How the address was come by, for people.
    """
    raw = memory.read_available(address, MAX_SIZE) if address else b""
    found = parse(raw, address, source, is_32bit=is_32bit)
    if found is None and kernel_base and not is_32bit:
        decoded = decode(raw, kernel_base)
        plain = parse(decoded, address, f"{source}, decoded", is_32bit=False) if decoded else None
        found = (
            None
            if plain is None
            else Kdbg(address, plain.raw, plain.pointer_mask, plain.source, True)
        )
    if found is None or (kernel_base and found.kernel_base != kernel_base):
        return None
    return found


def decode(raw: bytes, kernel_base: int) -> bytes | None:
    """Decodes an encoded block by what is known of it: its tag, its size and the kernel base.

    Returns:
        All bytes given, decoded (what lies behind the block is nonsense), or None when no rotation
        gives the tag, a possible size and the kernel base at once.
    """
    words = np.frombuffer(raw[: len(raw) // 8 * 8], "<u8")
    if len(words) < MIN_SIZE // 8:
        return None
    tag, base = int(words[2]), int(words[3])
    for rotation in range(64):
        mask = _unwrapped(base, rotation) ^ kernel_base
        head = (_unwrapped(tag, rotation) ^ mask).to_bytes(8, "little")
        size = int.from_bytes(head[4:], "little")
        if head[:4] == TAG and MIN_SIZE <= size <= min(MAX_SIZE, len(raw)) and size % 8 == 0:
            left, right = np.uint64(rotation), np.uint64((64 - rotation) % 64)
            turned = (words << left) | (words >> right) if rotation else words
            return (turned.byteswap() ^ np.uint64(mask)).tobytes()
    return None


def _unwrapped(word: int, rotation: int) -> int:
    turned = ((word << rotation) | (word >> (64 - rotation))) & ((1 << 64) - 1)
    return int.from_bytes(turned.to_bytes(8, "little"), "big")


def scan(
    memory: AddressSpace, start: int, end: int, kernel_base: int, source: str, *, is_32bit: bool
) -> Kdbg | None:
    """Searches a range (the kernel's image) for the block, plain or encoded.

    Both forms are found in one pass without decoding anything: of two neighbouring qwords of an
    encoded block the mask cancels out, and what is left of tag, size and kernel base is one of 64
    rotations for each size a block is known to have.
    """
    plain = np.frombuffer(TAG, "<u4")[0]
    wanted = _differences(kernel_base)
    for at in range(start & ~7, end, SCAN_BYTES):
        stop = min(at + SCAN_BYTES, end)
        # A window without holes, and one qword more, for a block whose tag ends a page.
        window = np.zeros((SCAN_BYTES >> 3) + 1, np.uint64)
        for address, size, offset in zip(*memory.extents(at, stop + 8), strict=True):
            low, whole = int(address) - at, int(size)
            window.view(np.uint8)[low : low + whole] = memory.data[int(offset) :][:whole]
        hits = np.flatnonzero((window & np.uint64(0xFFFF_FFFF)) == plain).tolist()
        if not is_32bit and kernel_base:
            hits += np.flatnonzero(np.isin(window[:-1] ^ window[1:], wanted)).tolist()
        for hit in sorted(hits):
            place = at + hit * 8 - TAG_OFFSET
            found = read(memory, place, kernel_base, source, is_32bit=is_32bit)
            if found is not None:
                return found
    return None


def _differences(kernel_base: int) -> U64:
    """What the qwords at 0x10 and 0x18 of an encoded block give, XORed, for each rotation."""
    values = set()
    for size in KNOWN_SIZES:
        plain = (int.from_bytes(TAG, "little") | size << 32) ^ kernel_base
        swapped = int.from_bytes(plain.to_bytes(8, "little"), "big")
        for rotation in range(64):
            values.add(((swapped >> rotation) | (swapped << (64 - rotation))) & ((1 << 64) - 1))
    return np.array(sorted(values), np.uint64)
