"""The process that reads inputs: what goes on in it."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import IO, Any

from dumpleak.fleets.belonging import Series
from dumpleak.fleets.reading import GrowthRequest, ReadingRequest, compare_series, read_input
from dumpleak.fleets.store import Task

if sys.platform != "win32":
    import resource

MEMORY_VARIABLE = "DUMPLEAK_FLEET_MEMORY"


def serve() -> None:
    """Answers requests until nobody is there to ask."""
    # What a library prints must not stand among the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        _limit_memory(os.environ.get(MEMORY_VARIABLE, ""))
        _say(answers, {"ready": True})
        for request in iter(_requests().get, None):
            _say(answers, _answer(request))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "series" in request:
        told: dict[str, Any] = request.pop("series")
        series = Series(**{**told, "ids": tuple(told["ids"])})
        return compare_series(GrowthRequest(series=series, **request))
    task = Task(**request.pop("task"))
    return read_input(ReadingRequest(task=task, **request))


def _say(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str).encode() + b"\n")
    answers.flush()


def _requests() -> queue.SimpleQueue[dict[str, Any] | None]:
    """Requests as they come; when the worker dies, this process ends in the middle of its work."""
    found: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            found.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def _limit_memory(limit: str) -> None:
    """Memory of its own, not the dump that is mapped; other systems than Linux do not enforce it."""
    if limit and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
