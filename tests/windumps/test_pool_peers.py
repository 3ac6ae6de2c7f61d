"""volatility3's windows.bigpools lists the same large allocations; runs where it is installed.

It needs a table of the kernel's symbols, which the repository does not have: the shared collection
has some beside its dumps. It reads dumps of types 1 and 5.
"""

from __future__ import annotations

import csv
import io
import lzma
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from kernel_truth import KernelTruthDump, kernel_dumps
from pool_truth import PoolCase
from truth import SHARED

from windumps.pool_tags import Pool, tag_text

SYMBOLS = SHARED.parent / "symbols" / "isf"
_RUN = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"
_SOURCES = [
    dump
    for dump in kernel_dumps("leak-pair-full", "leak-pair-bmp5")
    if dump.dump.name.startswith("after") and dump.build.endswith("-x64")
]
POOLS = {
    "NonPagedPool": Pool.NONPAGED,
    "NonPagedPoolNx": Pool.NONPAGED_NX,
    "PagedPool": Pool.PAGED,
}


def _pool(text: str) -> Pool:
    """Types charged to a quota (bit 3) have no name there."""
    number = text.removeprefix("Unknown choice ")
    if text in POOLS:
        return POOLS[text]
    if int(number) & 0x200:
        return Pool.NONPAGED_NX
    return Pool.PAGED if int(number) & 1 else Pool.NONPAGED


@pytest.mark.parametrize("source", _SOURCES, ids=lambda source: source.name)
def test_volatility3_lists_the_same_large_allocations(
    source: KernelTruthDump, tmp_path: Path
) -> None:
    pytest.importorskip("volatility3")
    case = PoolCase(source, True)
    pdb = case.dump.kernel.symbols.pdb
    assert pdb is not None
    table = SYMBOLS / pdb.name / f"{pdb.guid}-{pdb.age}.json.xz"
    if not table.exists():
        pytest.skip("no table of this kernel's symbols")
    folder = tmp_path / "windows" / pdb.name
    folder.mkdir(parents=True)
    (folder / table.name).write_bytes(table.read_bytes())
    path = tmp_path / "peer.dmp"
    path.write_bytes(lzma.decompress(source.dump.read_bytes()))
    options = ["-q", "--offline", "-s", str(tmp_path), "-r", "csv", "-f", str(path)]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *options, "windows.bigpools"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [
        row for row in csv.DictReader(io.StringIO(done.stdout.strip())) if row.get("Allocation")
    ]
    theirs = Counter(
        (
            int(row["Allocation"], 16) & (1 << 48) - 1,
            row["Tag"],
            _pool(row["PoolType"]),
            int(row["NumberOfBytes"], 16),
        )
        for row in rows
        if row["Status"] == "Allocated"
    )
    pages = case.pools.big_pages
    columns = (pages.address, pages.tag, pages.pool, pages.size_bytes)
    ours = Counter(
        (address & (1 << 48) - 1, tag_text(tag).strip(), Pool(pool), size)
        for address, tag, pool, size in zip(*(c.tolist() for c in columns), strict=True)
    )
    assert Counter((a, t.strip(), p, s) for a, t, p, s in theirs.elements()) == ours
    assert len(rows) > 100
