"""Files that people do send and that are no dumps: what they are, and how to get a dump from them.

A new one is one row. Sources of the magic numbers: the tools that write or read them (VMware's vmss2core,
dissect.hypervisor for Hyper-V's storage, VirtualBox's SSM, libvirt's qemu_driver, QEMU's migration.h and
dump.c, Proxmox' vma.h, LiME's and AVML's headers, libewf, the AFF4 standard, volatility3 for hibernation).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class ForeignFormat(NamedTuple):
    """A kind of file that is told by how it begins, or by how its name ends.

    Attributes:
        magics: What such files begin with; empty when the name alone tells.
        suffixes: How their names end. Asked only when no reader and no magic took the file.
        what: Said after "this is".
        advice: What to do; `{file}` stands for the file's name, `{stem}` for that without its suffix.
    """

    magics: tuple[bytes, ...]
    suffixes: tuple[str, ...]
    what: str
    advice: str


_PACKED = (".gz", ".xz", ".zst", ".zip", ".cab")
_PROGRAM = "a Windows program, not a dump of one"
_LINUX = "the tool takes memory of Linux; of Windows take a raw image, e.g. with WinPmem"

FOREIGN_FORMATS: tuple[ForeignFormat, ...] = (
    ForeignFormat((b"\x7fELF",), (), "an ELF file, not a Windows dump", ""),
    ForeignFormat((b"MZ",), (), _PROGRAM, "take one of its process: procdump -ma PID app.dmp"),
    ForeignFormat((b"%PDF",), (), "a PDF document", ""),
    ForeignFormat(
        (b"Microsoft C/C++ MSF 7.00",), (), "a PDB, the symbols of an image, and no dump", ""
    ),
    ForeignFormat(
        (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"),
        (),
        "a Mach-O file of macOS, not a Windows dump",
        "",
    ),
    ForeignFormat(
        (b"hibr", b"HIBR"),
        (),
        "a hibernation file of Windows (hiberfil.sys)",
        "decompress it into raw memory, e.g. with Hibr2Bin of Comae or "
        "vol -f {file} windows.hibernation.Dump --version N of volatility3",
    ),
    ForeignFormat(
        (b"wake", b"WAKE", b"rstr", b"RSTR"),
        (),
        "a hibernation file of a Windows that was started from it since",
        "most of its memory is overwritten: take a dump of the running system, or hibernate again and copy "
        "the file before the start",
    ),
    ForeignFormat(
        tuple(
            bytes.fromhex(magic)
            for magic in ("d0bed0be", "d1bed1be", "d2bed2be", "d3bed3be", "d0bed2be", "d1bad1ba")
        ),
        (".vmss", ".vmsn"),
        "the state of a suspended or snapshotted VMware machine",
        "give the memory beside it ({stem}.vmem); without one: vmss2core -W8 {file} (-W before Windows 8)",
    ),
    ForeignFormat(
        (b"\x14\x20\x28\x01",),
        (".vmrs", ".vsv"),
        "the saved state of a Hyper-V machine",
        "open it on Windows with windbg -z {file} and write a dump: .dump /f vm.dmp",
    ),
    ForeignFormat(
        (b"\x7fVirtualBox SavedState",),
        (".sav",),
        "the saved state of a VirtualBox machine",
        "start the machine and run: VBoxManage debugvm NAME dumpvmcore --filename vm.elf",
    ),
    ForeignFormat(
        (b"LibvirtQemudSave", b"LibvirtQemudPart"),
        (),
        "a machine saved by libvirt",
        "restore it and take a core: virsh restore {file}; virsh dump --memory-only DOMAIN vm.elf",
    ),
    ForeignFormat(
        (b"QEVM",),
        (),
        "the state of a QEMU machine (savevm or migration)",
        "load it and run in QEMU's monitor: dump-guest-memory -w vm.dmp (without -w: an ELF core)",
    ),
    ForeignFormat(
        (b"KDUMP   ", b"makedumpfile", b"DISKDUMP"),
        (),
        "a compressed dump in the format of Linux' kdump",
        "of a Windows machine take: virsh dump --memory-only --format win-dmp DOMAIN vm.dmp",
    ),
    ForeignFormat(
        (b"VMA\0",),
        (".vma",),
        "a backup of a Proxmox machine",
        "it holds disks; of the running machine take memory in its monitor: dump-guest-memory vm.elf",
    ),
    ForeignFormat((b"EMiL", b"LiME"), (".lime",), "a memory image of LiME", _LINUX),
    ForeignFormat((b"AVML", b"LMVA"), (".avml",), "a memory image of AVML", _LINUX),
    ForeignFormat(
        (b"EVF\x09\x0d\x0a\xff\x00", b"EVF2\x0d\x0a\x81\x00"),
        (".e01", ".ex01"),
        "an image in the format of EnCase",
        "convert it to raw memory: ewfexport -f raw -t memory {file}",
    ),
    ForeignFormat(
        (b"HPAK",),
        (".hpak",),
        "memory in the format of HBGary's FastDump",
        "extract raw memory: vol.py -f {file} hpakextract -O memory.raw of volatility 2",
    ),
    ForeignFormat(
        (),
        (".aff4",),
        "an image in the AFF4 format",
        "extract raw memory with the tool that wrote it (WinPmem: winpmem -dd -e PhysicalMemory -D FOLDER "
        "{file})",
    ),
)


def by_content(path: Path, head: bytes) -> str | None:
    """What a file is that begins so, and what to do; None when its beginning is of no known kind."""
    return next((_text(row, path) for row in FOREIGN_FORMATS if head.startswith(row.magics)), None)


def by_name(path: Path) -> str | None:
    """What a file is by its name; None when that says nothing."""
    suffix = _unpacked(path).suffix.lower()
    return next((_text(row, path) for row in FOREIGN_FORMATS if suffix in row.suffixes), None)


def _unpacked(path: Path) -> Path:
    """The path without what compression added to its name."""
    return path.with_suffix("") if path.suffix.lower() in _PACKED else path


def _text(row: ForeignFormat, path: Path) -> str:
    path = _unpacked(path)  # the tools want it so
    advice = row.advice.format(file=path.name, stem=path.stem)
    return f"this is {row.what}" + (f"; {advice}" if advice else "")
