"""Files that people send in place of dumps are named, with what gets a dump from them."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from windumps import open_dump
from windumps.errors import NotADumpError, UnsupportedDumpError

# As the tools write them: the first bytes, what the answer must name, and a word of the way out.
FILES = [
    ("a.vmss", "d2bed2be", "VMware", "a.vmem"),
    ("a.vmsn", "d0bed2be", "VMware", "vmss2core"),
    ("a.bin", "d3bed3be", "VMware", "vmss2core"),
    ("a.vmrs", "14202801", "Hyper-V", "windbg -z a.vmrs"),
    ("saved.vmrs", "01000000", "Hyper-V", ".dump /f"),
    ("a.sav", b"\x7fVirtualBox SavedState V2.0\n".hex(), "VirtualBox", "dumpvmcore"),
    ("a.save", b"LibvirtQemudSave\2".hex(), "libvirt", "virsh restore a.save"),
    ("a", b"QEVM\0\0\0\3".hex(), "QEMU", "dump-guest-memory"),
    ("a.kdump", b"KDUMP   \6".hex(), "kdump", "win-dmp"),
    ("a.kdump", b"makedumpfile\0".hex(), "kdump", "win-dmp"),
    ("a.E01", "455646090d0aff00", "EnCase", "ewfexport"),
    ("a.lime", "454d694c01", "LiME", "Linux"),
    ("a.avml", "41564d4c02", "AVML", "Linux"),
    ("hiberfil.sys", b"HIBR".hex(), "hibernation", "Hibr2Bin"),
    ("hiberfil.sys", b"WAKE".hex(), "hibernation", "overwritten"),
    ("hiberfil.sys", b"RSTR".hex(), "hibernation", "overwritten"),
    ("hiberfil.sys", b"wake".hex(), "hibernation", "overwritten"),
    ("a.hpak", b"HPAK".hex(), "FastDump", "hpakextract"),
    ("a.vma", b"VMA\0\0\0\0\1".hex(), "Proxmox", "dump-guest-memory"),
    ("a.AFF4", b"anything".hex(), "AFF4", "raw memory"),
]


@pytest.mark.parametrize(("name", "head", "what", "way"), FILES)
def test_a_foreign_file_is_named_with_the_way_to_a_dump(
    tmp_path: Path, name: str, head: str, what: str, way: str
) -> None:
    path = tmp_path / name
    path.write_bytes(bytes.fromhex(head).ljust(0x2000, b"\0"))
    with pytest.raises(UnsupportedDumpError) as caught:
        open_dump(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: this is ")
    assert what in text
    assert way in text
    # Nobody takes a dump of a process of a machine that is a file.
    assert "procdump" not in text
    assert "\n" not in text


def test_advice_on_a_compressed_file_names_it_as_it_is_without(tmp_path: Path) -> None:
    path = tmp_path / "a.vmss.gz"
    path.write_bytes(gzip.compress(bytes.fromhex("d2bed2be").ljust(0x2000, b"\0")))
    with pytest.raises(UnsupportedDumpError, match=r"\(a\.vmem\).*vmss2core -W8 a\.vmss "):
        open_dump(path)
    path = tmp_path / "saved.vmrs.gz"
    path.write_bytes(gzip.compress(b"\1".ljust(0x2000, b"\0")))
    with pytest.raises(UnsupportedDumpError, match=r"Hyper-V.*windbg -z saved\.vmrs "):
        open_dump(path)


def test_an_aff4_archive_is_named_although_it_is_a_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "a.aff4"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("container.description", "aff4://made")
        archive.writestr("information.turtle", "")
    with pytest.raises(UnsupportedDumpError, match="this is an image in the AFF4 format"):
        open_dump(path)


def test_nothing_is_claimed_of_a_file_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 32)
    with pytest.raises(NotADumpError, match="not a Windows dump"):
        open_dump(path)
