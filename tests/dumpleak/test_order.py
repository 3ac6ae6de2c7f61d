"""Two dumps in an order that only the user knows, or that the process itself tells."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import process_list
from truth import TESTDATA

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
MISC_INFO = 15  # MINIDUMP_STREAM_TYPE
ON_TRUST, SWAPPED = "order-unknown", "dumps-swapped"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, *, time: int, seconds: int) -> Path:
        """A dump of the pair that says it was taken at `time`, after `seconds` of processor time."""
        data = bytearray(gzip.decompress((PAIR / f"{name}.dmp.gz").read_bytes()))
        struct.pack_into("<I", data, 20, time)
        count, directory = struct.unpack_from("<II", data, 8)
        for entry in range(directory, directory + 12 * count, 12):
            kind, _, place = struct.unpack_from("<III", data, entry)
            if kind == MISC_INFO:
                struct.pack_into("<II", data, place + 16, seconds, 0)
        path = tmp_path / f"{name}.dmp"
        path.write_bytes(data)
        return path

    return write


def _codes(run: Any, *dumps: Path) -> set[str]:
    _, out, _ = run("diff", *dumps, "--format", "json")
    return {item["code"] for item in json.loads(out)["diagnostics"]}


def test_dumps_of_one_time_that_shrank_say_that_the_order_is_believed(
    run: Any, written: Any
) -> None:
    older, newer = (written(name, time=1, seconds=4) for name in ("before", "after"))
    code, out, _ = run("diff", newer, older)
    assert (code, "do not tell which was taken first" in " ".join(out.split())) == (0, True)
    assert ON_TRUST in _codes(run, newer, older)
    assert not {ON_TRUST, SWAPPED} & _codes(run, older, newer)  # nothing that grew is hidden


def test_processor_time_tells_the_order_where_the_clock_does_not(run: Any, written: Any) -> None:
    older = written("before", time=1, seconds=4)
    newer = written("after", time=1, seconds=9)
    assert SWAPPED in _codes(run, newer, older)
    assert run("diff", newer, older, "--fail-on", "bytes>=1")[0] == 3
    assert run("diff", older, newer, "--fail-on", "bytes>=1")[0] == 1


def test_processor_time_that_a_tool_left_out_tells_no_order(run: Any, written: Any) -> None:
    older, newer = written("before", time=1, seconds=4), written("after", time=1, seconds=0)
    assert not {ON_TRUST, SWAPPED} & _codes(run, older, newer)
    assert run("diff", older, newer, "--fail-on", "bytes>=1")[0] == 1


def test_the_clock_decides_where_it_moved(run: Any, written: Any) -> None:
    older = written("before", time=1, seconds=9)
    newer = written("after", time=2, seconds=4)
    assert not {ON_TRUST, SWAPPED} & _codes(run, older, newer)


def test_snapshot_files_keep_what_tells_the_order(run: Any, written: Any, tmp_path: Path) -> None:
    files = []
    for name, seconds in (("before", 4), ("after", 9)):
        files.append(tmp_path / f"{name}.dlsnap")
        dump = written(name, time=1, seconds=seconds)
        assert run("snapshot", dump, "-o", files[-1])[0] == 0
    assert SWAPPED in _codes(run, *files[::-1])


def test_lists_without_a_time_that_shrank_say_that_the_order_is_believed(
    run: Any, tmp_path: Path
) -> None:
    lists = [tmp_path / f"{number}.csv" for number in range(2)]
    for file, handles in zip(lists, (507, 9507), strict=True):
        file.write_text(process_list([("app", 4711, handles, 20 << 20)]))
    assert ON_TRUST in _codes(run, *lists[::-1])
    assert ON_TRUST not in _codes(run, *lists)


def test_what_is_new_since_a_later_dump_is_no_question(run: Any, written: Any) -> None:
    older, newer = written("before", time=1, seconds=4), written("after", time=2, seconds=9)
    code, out, err = run("allocations", older, "--new-since", newer)
    assert (code, out, "was taken after" in err) == (3, "", True)
    assert run("allocations", newer, "--new-since", older)[0] == 0


def test_blocks_that_are_free_are_neither_new_nor_unreferenced(run: Any, written: Any) -> None:
    dump = written("after", time=2, seconds=9)
    code, out, err = run("allocations", dump, "--unreferenced", "--state", "free")
    assert (code, out, "of used blocks" in err) == (2, "", True)
