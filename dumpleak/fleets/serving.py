"""The process that reads inputs: what goes on in it."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Any

from dumpleak.fleets.belonging import Series
from dumpleak.fleets.child import BEGUN, MEMORY_VARIABLE
from dumpleak.fleets.reading import GrowthRequest, ReadingRequest, compare_series, read_input
from dumpleak.fleets.store import Task

if sys.platform != "win32":
    import resource

_DATA = 5  # of the numbers in statm


def serve() -> None:
    """Answers requests until nobody is there to ask."""
    # What a library prints must not stand among the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        requests = _requests()
        _limit_memory(os.environ.get(MEMORY_VARIABLE, ""))
        _say(answers, {"ready": True})
        while True:
            request = requests.get()
            _say(answers, _answer(request, answers))


def _answer(request: dict[str, Any], answers: IO[bytes]) -> dict[str, Any]:
    if "series" in request:
        told: dict[str, Any] = request.pop("series")
        series = Series(**{**told, "ids": tuple(told["ids"])})
        return compare_series(GrowthRequest(series=series, **request))
    task = Task(**request.pop("task"))
    return read_input(
        ReadingRequest(task=task, **request), lambda told: _say(answers, {BEGUN: told})
    )


def _say(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str).encode() + b"\n")
    answers.flush()


def _requests() -> queue.SimpleQueue[dict[str, Any]]:
    """Requests as they come; when the worker dies, this process ends in the middle of its work."""
    found: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            found.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def _limit_memory(limit: str) -> None:
    """What an input takes: neither the program, nor a dump that is mapped. Only Linux enforces it."""
    if limit and sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[_DATA])
        most = pages * resource.getpagesize() + int(limit)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
