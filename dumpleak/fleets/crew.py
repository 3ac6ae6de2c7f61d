"""Workers: our own, or those of a cluster that is there. What dies costs a retry."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, TypeVar

import dask
import psutil
from distributed import Client, Future, KilledWorker, LocalCluster

import dumpleak
from dumpleak.fleets.child import Limits
from windumps.errors import WindumpsError

J = TypeVar("J")
R = TypeVar("R")

PER_WORKER_BYTES = 1 << 30  # a machine with less a core has fewer workers
_MEMORY_SHARE = 0.8  # of the machine's, which all workers share
_IN_FLIGHT = 3  # jobs a worker: one at work, and others that wait
_TRIES = 2  # of a job whose worker dies
_TICK_SECONDS = 0.5
_COUNT_SECONDS = 5.0
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 30  # for which a first worker is waited for
_LOST_SECONDS = 300  # for which a scheduler that went away is waited for
_RESULT_SECONDS = 120  # for which a result, once it is there, may travel
_TALKERS = ("distributed", "tornado", "asyncio")
_CONFIG = {
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 100,
    "distributed.scheduler.allowed-failures": 2,
}


class ClusterError(WindumpsError):
    """There are no workers."""


def local_workers(wanted: int | None) -> tuple[int, int]:
    """How many workers this machine has, and the bytes of memory for each."""
    memory = int(psutil.virtual_memory().total * _MEMORY_SHARE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = wanted or max(min(cores or 1, memory // PER_WORKER_BYTES), 1)
    return count, memory // count


class Crew:
    """Workers, connected when there is work.

    Args:
        scheduler: Address of a cluster's scheduler; None for workers of our own.
        workers: How many of our own; None for as many as cores and memory allow.
        say: Told what people should know.
        debug: Let the cluster's own messages through.
    """

    def __init__(
        self,
        scheduler: str | None,
        workers: int | None,
        say: Callable[[str], None],
        *,
        debug: bool = False,
    ) -> None:
        self._scheduler, self._count, self._say = scheduler, workers, say
        self._stack = ExitStack()
        self._client: Client | None = None
        self._level = logging.WARNING if debug else logging.CRITICAL + 1

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connected(self) -> Client:
        """The client; waits for a scheduler that went away."""
        if self._client is not None and self._client.status == "running":
            return self._client
        first = self._client is None
        self._stack.close()
        self._stack = ExitStack()
        self._stack.enter_context(dask.config.set(_CONFIG))
        self._stack.enter_context(_quiet(self._level))
        if self._scheduler is None:
            count, _ = local_workers(self._count)
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                dashboard_address=None,
                # Else a port that all want, on all networks of the machine.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                memory_limit=0,
                silence_logs=self._level,
            )
            self._stack.enter_context(cluster)
            self._client = self._stack.enter_context(Client(cluster))
        else:
            self._client = self._stack.enter_context(self._joined(self._scheduler, first=first))
            _check_workers(self._client, self._scheduler)
        return self._client

    def _joined(self, address: str, *, first: bool) -> Client:
        until = time.monotonic() + (0 if first else _LOST_SECONDS)
        if not first:
            self._say(f"{address}: the scheduler went away; waiting for it")
        while True:
            try:
                return Client(address, timeout=_CONNECT_SECONDS)
            except (OSError, ValueError) as error:
                if time.monotonic() >= until:
                    raise ClusterError(
                        f"{address}: no scheduler answers ({' '.join(str(error).split())}); what was read "
                        "stays, run the same line again when it does"
                    ) from error
                time.sleep(_TICK_SECONDS)

    def work(
        self,
        function: Callable[..., R],
        jobs: Iterator[J],
        how: object,
        finish: Callable[[J, R | BaseException], None],
        tick: Callable[[], None],
    ) -> None:
        """Has all jobs done; few are on their way at a time, so that memory does not grow with them.

        Args:
            function: Called on a worker with a job and `how`.
            jobs: What is to be done.
            how: Handed on.
            finish: Told of each job what came of it, in any order: a result, or what ended worker after
                worker.
            tick: Called now and then.

        Raises:
            ClusterError: the scheduler is gone for good.
        """
        _Work(self, function, jobs, how, finish, tick).run()


class _Work(Generic[J, R]):
    def __init__(
        self,
        crew: Crew,
        function: Callable[..., R],
        jobs: Iterator[J],
        how: object,
        finish: Callable[[J, R | BaseException], None],
        tick: Callable[[], None],
    ) -> None:
        self._crew, self._function, self._how = crew, function, how
        self._jobs, self._finish, self._tick = jobs, finish, tick
        self._again: list[tuple[J, int]] = []  # with how often each was tried
        self._flying: dict[Any, tuple[J, int, Future[R]]] = {}
        self._done: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()
        self._count, self._count_until = 1, 0.0

    def run(self) -> None:
        """Until all is done."""
        while True:
            client = self._crew._connected()
            self._fill(client)
            if not self._flying:
                return
            self._tick()
            try:
                future = self._done.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                if client.status != "running":
                    self._lost()
                continue
            self._take(future)

    def _fill(self, client: Client) -> None:
        while len(self._flying) < _IN_FLIGHT * self._threads(client):
            if self._again:
                job, tries = self._again.pop()
            else:
                found = next(self._jobs, None)
                if found is None:
                    return
                job, tries = found, 0
            future = client.submit(self._function, job, self._how, pure=False)
            self._flying[future.key] = job, tries, future
            future.add_done_callback(self._done.put)

    def _threads(self, client: Client) -> int:
        """How many threads the workers have; asked for now and then, as workers come and go."""
        if time.monotonic() > self._count_until:
            self._count_until = time.monotonic() + _COUNT_SECONDS
            try:
                self._count = max(sum(client.nthreads().values()), 1)
            except (CancelledError, OSError, TimeoutError):
                return self._count  # the scheduler is about to be missed
        return self._count

    def _take(self, future: Future[R]) -> None:
        if future.key not in self._flying:
            return  # of a scheduler that went away
        job, tries, _ = self._flying.pop(future.key)
        if future.status == "finished":
            try:
                result = future.result(_RESULT_SECONDS)
            except (CancelledError, OSError, TimeoutError):  # whoever had it is gone
                self._again.append((job, tries))
                return
            self._finish(job, result)
        elif future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker) and tries + 1 < _TRIES:
                self._again.append((job, tries + 1))
            else:
                self._finish(job, error)
        else:  # cancelled: the scheduler is gone
            self._again.append((job, tries))
            self._lost()

    def _lost(self) -> None:
        """All that was on its way is to be done again."""
        self._again += [(job, tries) for job, tries, _ in self._flying.values()]
        self._flying.clear()


def _check_workers(client: Client, address: str) -> None:
    """Refuses workers that do not have this package.

    Raises:
        ClusterError: there are none, or they have none or another version.
    """
    try:
        client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        versions = client.run(_version)
    except TimeoutError as error:
        raise ClusterError(f"{address}: the scheduler has no workers; start some") from error
    except ImportError as error:
        raise ClusterError(
            f"{address}: its workers do not have dumpleak; install 'dumpleak[fleet]' there"
        ) from error
    other = {v for v in versions.values() if v != dumpleak.__version__}
    if other:
        raise ClusterError(
            f"{address}: its workers have dumpleak {', '.join(sorted(other))}, this is "
            f"{dumpleak.__version__}; install the same there"
        )


def _version() -> str:
    return dumpleak.__version__


def memory_of(limit: int | None, scheduler: str | None, workers: int | None) -> int | None:
    """The memory that one input may take: what was asked for, else a worker's share of this machine."""
    return limit or (local_workers(workers)[1] if scheduler is None else None)


@contextmanager
def _quiet(level: int) -> Iterator[None]:
    """The cluster's own messages are for who looks for faults in it."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_TALKERS)]
    loggers = [logging.getLogger(name) for name in names]
    kept = [logger.level for logger in loggers]
    for logger in loggers:  # each has its own, which the library sets
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, kept, strict=True):
            logger.setLevel(before)


__all__ = ["ClusterError", "Crew", "Limits", "local_workers", "memory_of"]
