"""Makes `testdata/kernel-verifier/`: a pair of dumps of a system with Driver Verifier on.

Run it to make them anew: python tests/make_verifier_dumps.py
"""

from __future__ import annotations

import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

from builders.verifier_builder import SETTINGS, Tracked, VerifiedSystem
from truth import TESTDATA

FOLDER = TESTDATA / "kernel-verifier" / "14393-x64" / "pair"
OLDER = 40  # blocks of acmenet.sys whose records the log has no more


def made_system(folder: Path, which: str, build: str = "14393-x64") -> VerifiedSystem:
    """acmenet.sys leaks from one of two places; the later dump was taken when it was unloaded.

    The log of the later dump was filled more than once, so that it lacks what is older.
    """
    made = VerifiedSystem(folder, build, which)
    net = made.watch("acmenet.sys", "AcNb", "AcNc", unloads=int(which == "after"))
    flt = made.watch("acmeflt.sys", "AcFc", stacks=1)
    made.watch("acmecam.sys", loads=0)
    made.watch("acmeold.sys", unloads=1)
    is_later = which == "after"
    spare = Tracked(made.data, 48, "AcFt", True, (made.modules["acmeflt.sys"] + 0x1800,))
    for number in range(400 if is_later else 6):
        spare.address = net.blocks[0].address + 0x1_0000_0000 + 0x40 * number
        made.log_allocation(spare)
        made.log_free(spare.address, spare.size, spare.caller)
    for block in (*net.blocks[OLDER * is_later :], *flt.blocks):
        made.log_allocation(block)
    made.write()
    if is_later:
        name, counters = made.string("acmenet.sys"), made.data + 0x40
        made.stop(0xC4, 0x62, name, counters, len(net.blocks))
    return made


def truth_of(made: VerifiedSystem) -> dict[str, Any]:
    """What must come out of a dump."""
    newest = {address: list(stack[1:]) for address, _, stack in made.logged[-512:]}
    return {
        "level": SETTINGS,
        "drivers": [
            {
                "name": driver.name,
                "loads": driver.loads,
                "unloads": driver.unloads,
                "paged": driver.held(paged=True),
                "nonpaged": driver.held(paged=False),
                "blocks": [
                    {
                        "address": f"0x{block.address:016x}",
                        "bytes": block.size,
                        "tag": block.tag,
                        "caller": f"{driver.name}+0x{block.caller - made.modules[driver.name]:x}",
                        "stack": newest.get(block.address),
                    }
                    for block in driver.blocks
                ],
            }
            for driver in made.watched
        ],
    }


def main() -> None:
    """Writes dumps and truth files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for which in ("before", "after"):
            made = made_system(Path(folder), which)
            raw, truth = made.save().read_bytes(), json.dumps(truth_of(made)).encode()
            (FOLDER / f"{which}.dmp.xz").write_bytes(
                lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
            )
            (FOLDER / f"{which}.truth.json.xz").write_bytes(lzma.compress(truth, preset=9))


if __name__ == "__main__":
    main()
