"""What every command says of how much of a kernel dump's pools was walked."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

from dumpleak.model.coverage import Coverage, PoolsCovered
from fuzz.command_lines import CANNOT_ANSWER, run

NO_ANSWER = "no answer"
HOUR = 36_000_000_000  # in units of FILETIME
SYSTEM_TIME, UP_TIME = {64: 0xFA8, 32: 0xFC0}, {64: 0x1030, 32: 0xFB8}


def share_of(covered: Coverage) -> str:
    return f"{covered.share_text}, {covered.walked_bytes} of {covered.committed_bytes}"


def by_commands(data: bytes) -> dict[str, str]:
    """What every command says of the dump, of a snapshot file of it, and of series of it."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.dmp" for number in range(3)]
        for number, file in enumerate(files):
            file.write_bytes(_later(data, number))
        first, taken = str(files[0]), Path(folder) / "taken.dlsnap"
        said = {
            "command pool": _asked("pool", first),
            "command stat": _asked("stat", first),
            "diff": _asked("diff", first, str(files[1])),
            "trend": _asked("trend", *map(str, files)),
        }
        run("snapshot", first, "-o", str(taken))
        for command in ("stat", "pool"):
            name = f"{command} of its snapshot"
            said[name] = _asked(command, str(taken)) if taken.exists() else NO_ANSWER
        _, text, _ = run("info", first)
        # Of a file that is cut it says "partly", and pools are told.
        good = "Good enough to look for leaks? no" not in text
        if good == (said["command pool"] == NO_ANSWER):
            said["info"] = "yes" if good else "no"
    return said


def _asked(*words: str) -> str:
    """The share a command tells in its JSON; every dump of several must say the same.

    `pool` shows what it has also where it is no answer.
    """
    code, text, _ = run(*words, "--format", "json")
    document = json.loads(text) if text else {}
    told = document.get("coverage") or document.get("account", {}).get("coverage")
    if told is None or (code == CANNOT_ANSWER and words[0] == "pool"):
        return NO_ANSWER
    rows = [told[name] for name in ("base", "current")] if "base" in told else [told]
    return " and ".join(sorted({share_of(PoolsCovered(**row)) for row in rows}))


def _later(data: bytes, hours: int) -> bytes:
    """The dump as if it had been taken later."""
    width = 64 if data[4:8] == b"DU64" else 32
    changed = bytearray(data)
    for place in (SYSTEM_TIME[width], UP_TIME[width]):
        (value,) = struct.unpack_from("<Q", changed, place)
        struct.pack_into("<Q", changed, place, (value + hours * HOUR) % (1 << 64))
    return bytes(changed)
