"""`info` says that pool leaks can be looked for only when `pool` can answer."""

from __future__ import annotations

import pytest
from kernel_truth import KernelTruthDump, kernel_dumps, kernel_pairs
from pool_samples import run, run_json

from dumpleak.kernel import machine

TINY = next(pair for pair in kernel_pairs("tiny-pair") if pair[1].build == "14393-x64")[1].dump
DUMPS = [d for d in kernel_dumps("truncated", "traps") if d.dump.name.startswith("after")][:4]


@pytest.mark.parametrize("source", DUMPS, ids=lambda source: source.name)
def test_info_calls_a_dump_good_enough_only_when_pool_answers(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_json(capsys, "info", source.dump)
    code, _, err = run(capsys, "pool", source.dump)
    assert told["usable"] == told["pool"]["usable"] == (code == 0)
    if code:
        assert told["advice"] == f"no: {err.strip().removeprefix('dumpleak: ')}"


def test_blocks_beyond_this_machines_memory_are_left_to_the_counters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 10_000)
    code, out, err = run(capsys, "pool", TINY)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "this machine has 9.8 KiB of memory" in err
    assert "--no-walk" in err
    assert run(capsys, "pool", TINY, "--no-walk")[0] == 0
    told = run_json(capsys, "info", TINY)
    assert told["usable"] is True
    assert "--no-walk" in told["advice"]


def test_this_machine_tells_how_much_memory_it_has() -> None:
    held = machine.memory_bytes()
    assert held is None or held > 1 << 26
