"""Whatever bytes come: an answer or a typed error, in bounded time and memory."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from truth import REAL, TESTDATA

from dumpleak.cli import main
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import take_info
from windumps.dumps.minidump.reader import open_minidump
from windumps.errors import WindumpsError

TINY = [
    TESTDATA / build / "tiny" / "dump.dmp.gz"
    for build in ("10.0.19041.3324-x64", "6.1.7601.24384-x86", "10.0.26100.5074-x64")
]


def _answer(data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bool:
    """Opens, describes and adds up; False when a typed error said why not. Anything else
    propagates."""
    try:
        session = Session(open_minidump(Path("hostile.dmp"), data))
        take_info(session)
        take_snapshot(session)
    except WindumpsError:
        return False
    return True


def _bytes_of(path: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.parts[-3])
def test_every_prefix_of_the_streams_gives_an_answer_or_a_typed_error(path: Path) -> None:
    data = _bytes_of(path)
    memory = 0x3000  # the streams end before this offset
    lengths = [*range(0, memory, 5), *range(memory, len(data), len(data) // 150), len(data)]
    answers = [_answer(data[:length]) for length in lengths]
    assert not answers[0]
    assert answers[-1]


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.parts[-3])
def test_thousands_of_flipped_bytes_give_an_answer_or_a_typed_error(path: Path) -> None:
    original = _bytes_of(path)
    random = np.random.default_rng(11)
    answers = 0
    for round_ in range(700):
        data = original.copy()
        # The streams are a small part of the file, so half of the rounds hit them alone.
        limit = 0x3000 if round_ % 2 else len(data)
        places = random.integers(0, limit, 12)
        data[places] ^= random.integers(1, 256, 12).astype(np.uint8)
        answers += _answer(data)
    assert answers  # many flips hit nothing that matters


def _real_dumps() -> list[Path]:
    return sorted(p for p in REAL.rglob("*.dmp*") if p.is_file())


@pytest.mark.parametrize("command", ["info", "heaps", "stat", "allocations"])
def test_every_real_dump_gives_an_answer_or_one_line_and_exit_code_3(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = [*_real_dumps(), *TINY]
    for path in paths:
        with pytest.raises(SystemExit) as stop:
            main([command, str(path), "--format", "csv"])
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        assert "internal error" not in output.err
        assert stop.value.code in (0, 3), path
        if stop.value.code == 3:
            said = [line for line in output.err.splitlines() if line.startswith("dumpleak: ")]
            assert len(said) == 1, path
        else:
            assert len(output.out.splitlines()) > 1, f"{path}: an empty table is no answer"
