"""The process that reads inputs, one after the other, for a worker: it may be killed for a bad one.

It is started once, as its imports take a second, and replaced when it dies. A line of JSON comes in, a line
goes out. `Child` is the worker's side, `serve` that of the process.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Self

_CODE = "from dumpleak.fleets.serving import serve; serve()"
BEGUN = "begun"  # a first answer to a request: what is known before the long work
MEMORY_VARIABLE = "DUMPLEAK_FLEET_MEMORY"
_START_SECONDS = 120.0
_MOST_JOBS = 500  # after which a new process is started: libraries keep memory
_POLL_SECONDS = 0.5
_PROGRAM_BYTES = 100 << 20  # of the process before it reads anything
_SAID_LINES = 20
_SAID = 300  # of characters of what a dying process said


@dataclass(frozen=True)
class Limits:
    """What one input may take; None each for no limit.

    Attributes:
        seconds: Time by the clock.
        memory: Bytes of memory, besides the program's and the dump's own pages.
    """

    seconds: float | None = None
    memory: int | None = None


class ChildError(Exception):
    """The process did not answer; `str()` of it says why.

    Attributes:
        kind: A word for that.
        begun: What it said before it began.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.begun: dict[str, Any] = {}


class Child:
    """A process that reads inputs, started when it is first needed.

    Args:
        limits: What one input may take.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._jobs = 0
        self._said: deque[bytes] = deque(maxlen=_SAID_LINES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Lets the process do one job.

        Raises:
            ChildError: it took too long, or died of it; the next job has another process.
        """
        if self._jobs >= _MOST_JOBS:
            self.close()
        process = self._process or self._start()
        self._jobs += 1
        try:
            if process.stdin is None:
                raise ValueError("a process without an input")
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._died() from None
        begun: dict[str, Any] = {}
        try:
            while BEGUN in (answer := self._answer(self.limits.seconds)):
                begun = answer[BEGUN]
        except ChildError as error:
            error.begun = begun
            raise
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        places = os.pathsep.join(path for path in sys.path if path)
        environment = os.environ | {
            "PYTHONPATH": places,
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # others set memory aside that counts as used
            "OPENBLAS_NUM_THREADS": "1",
            MEMORY_VARIABLE: str(self.limits.memory or ""),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            # Ctrl-C is for the one who waits for it.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._process, self._jobs = process, 0
        self._answers = queue.SimpleQueue()
        self._said = deque(maxlen=_SAID_LINES)
        for target in ((process.stdout, self._answers.put), (process.stderr, self._said.append)):
            threading.Thread(target=_pass_on, args=target, daemon=True).start()
        self._answer(_START_SECONDS)  # it is ready; imports are no input's time
        return process

    def _answer(self, seconds: float | None) -> dict[str, Any]:
        left = seconds
        while True:
            wait = _POLL_SECONDS if left is None else min(left, _POLL_SECONDS)
            try:
                line = self._answers.get(timeout=max(wait, 0.01))
            except queue.Empty:
                if left is not None:
                    left -= wait
                    if left <= 0:
                        self.close()
                        raise ChildError(
                            "TimeLimit",
                            f"not done after {seconds:g} seconds; allow more with --timeout",
                        ) from None
                self._watch_memory()
                continue
            if not line.endswith(b"\n"):
                raise self._died()
            answer: dict[str, Any] = json.loads(line)
            return answer

    def _watch_memory(self) -> None:
        """Ends a process that takes too much, where the system does not refuse it."""
        limit = self.limits.memory
        if limit is None or sys.platform == "linux" or self._process is None:
            return
        import psutil  # comes with the workers

        try:
            used = psutil.Process(self._process.pid).memory_full_info().uss - _PROGRAM_BYTES
        except psutil.Error:
            return
        if used > limit:
            self.close()
            raise memory_error()

    def _died(self) -> ChildError:
        process = self._process
        if process is None:
            return ChildError("Crash", "the reading process could not be started")
        try:
            code = process.wait(10)
        except subprocess.TimeoutExpired:
            code = 0
        until = time.monotonic() + 1  # the last lines may still be on their way
        while b"" not in self._said and time.monotonic() < until:
            time.sleep(0.01)
        lines = [line.decode("utf-8", "replace").strip() for line in self._said]
        said = next((line for line in reversed(lines) if line), "")[:_SAID]
        self.close()
        if "MemoryError" in said:
            return memory_error()
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
            return ChildError(
                "Killed",
                f"the reading process was ended by {name}; memory may have run out, allow more with "
                "--memory-limit or have fewer workers",
            )
        return ChildError(
            "Crash", f"internal error ({said or f'exit code {code}'}); please report it"
        )

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with suppress(OSError):  # what was to be written has no reader
                process.stdin.close()


def memory_error() -> ChildError:
    """More memory was needed than is allowed."""
    return ChildError(
        "MemoryLimit", "needs more memory than it may have; allow more with --memory-limit"
    )


def _pass_on(stream: IO[bytes] | None, take: Callable[[bytes], None]) -> None:
    """Lines as they come, and an empty one at the end."""
    if stream is not None:
        with stream:
            for line in stream:
                take(line)
    take(b"")
