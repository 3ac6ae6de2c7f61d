"""Downloads from a symbol server: bounded in time and size, retried, written in one step.

Written on urllib: a symbol server is asked for one file at a time, and a library would add nothing
but a dependency.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO

from windumps.symbols.errors import (
    DownloadError,
    NotOnServerError,
    UnreachableServerError,
)

# Some servers answer only to what calls itself so.
USER_AGENT = "Microsoft-Symbol-Server/10.0.0.0 (windumps)"
CHUNK_BYTES = 1 << 18
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[str, int, "int | None"], None]
"""Called with the URL, the bytes received so far, and their total where the server says it."""


@dataclass(frozen=True)
class Limits:
    """How long and how much.

    Attributes:
        timeout_seconds: For connecting and for each wait for data.
        total_seconds: For one file, all tries together.
        max_bytes: Of one file.
        attempts: Tries, the first included.
        backoff_seconds: Wait before the second try; each further one waits twice as long.
    """

    timeout_seconds: float = 20.0
    total_seconds: float = 1800.0
    max_bytes: int = 8 << 30
    attempts: int = 3
    backoff_seconds: float = 1.0


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects (with urllib's limits), but not away from the web or from encryption."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """See urllib; None makes it an error."""
        allowed = ("https:",) if req.full_url.lower().startswith("https:") else ("http:", "https:")
        if not newurl.lower().startswith(allowed):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Retry(Exception):  # noqa: N818  # never seen outside
    """A trouble that may pass."""


@dataclass
class Downloader:
    """Fetches files.

    Attributes:
        limits: See `Limits`.
        progress: See `Progress`; None for silence.
        sleep: Waits between tries; tests give another.
    """

    limits: Limits = field(default_factory=Limits)
    progress: Progress | None = None
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, url: str, target: Path, accept: Callable[[Path], None]) -> None:
        """Downloads a file and puts it in its place only when it is whole and accepted.

        Args:
            url: http or https.
            target: Where it goes; its folder is made.
            accept: Looks at the downloaded temporary file and raises when it is not what was wanted.

        Raises:
            NotOnServerError: the server has no such file.
            UnreachableServerError: it gave no whole answer in several tries.
            DownloadError: anything else that went wrong with the network or the server.
            OSError: the target's folder cannot be written to.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.limits.total_seconds
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                self._retry(url, file, deadline)
            accept(temporary)
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _retry(self, url: str, file: IO[bytes], deadline: float) -> None:
        wait = self.limits.backoff_seconds
        for attempt in range(1, self.limits.attempts + 1):
            file.seek(0)
            file.truncate()
            try:
                return self._receive(url, file, deadline)
            except _Retry as error:
                if attempt == self.limits.attempts or time.monotonic() + wait > deadline:
                    tries = "1 try" if attempt == 1 else f"{attempt} tries"
                    raise UnreachableServerError(f"{url}: {error} ({tries})") from error
            self.sleep(wait)
            wait *= 2
        return None

    def _receive(self, url: str, file: IO[bytes], deadline: float) -> None:
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})  # noqa: S310
        opener = urllib.request.build_opener(_WebOnly())
        try:
            with opener.open(request, timeout=self.limits.timeout_seconds) as response:
                self._copy(url, response, file, deadline)
        except urllib.error.HTTPError as error:
            status, reason = error.code, error.reason
            error.close()
            if status in _RETRIED_STATUS:
                raise _Retry(f"the server answers {status}") from error
            if status in (404, 410):
                raise NotOnServerError(f"{url}: not on the server") from error
            if status in (401, 403):
                raise DownloadError(f"{url}: the server refuses ({status})") from error
            text = " ".join(str(reason).split())
            raise DownloadError(f"{url}: the server answers {status} {text}") from error
        except urllib.error.URLError as error:
            raise _Retry(f"the server cannot be reached ({error.reason})") from error
        except TimeoutError as error:
            raise _Retry(f"no data for {self.limits.timeout_seconds:g} s") from error
        except (HTTPException, ConnectionError) as error:
            raise _Retry(f"the connection broke ({type(error).__name__})") from error
        except (
            ValueError
        ) as error:  # what urllib and http.client say of a URL or header they refuse
            raise DownloadError(f"{url}: {error}") from error

    def _copy(self, url: str, response: HTTPResponse, file: IO[bytes], deadline: float) -> None:
        limit = self.limits.max_bytes
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if total is not None and total > limit:
            raise DownloadError(f"{url}: {total} bytes are more than the limit of {limit}")
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise DownloadError(f"{url}: the server sends {encoding}, which was not asked for")
        unpacker = zlib.decompressobj(31) if encoding == "gzip" else None
        received = written = 0
        while chunk := self._read(response):
            received += len(chunk)
            while chunk:
                data, chunk = _unpack(unpacker, chunk)
                written += len(data)
                if max(received, written) > limit:
                    raise DownloadError(f"{url}: more than the limit of {limit} bytes")
                file.write(data)
            if self.progress is not None:
                self.progress(url, received, total)
            if time.monotonic() > deadline:
                raise DownloadError(f"{url}: not done after {self.limits.total_seconds:g} s")
        if total is not None and received != total:
            raise _Retry(f"the server sent {received} of {total} bytes")
        if unpacker is not None:
            file.write(unpacker.flush())
            if not unpacker.eof:
                raise _Retry("the compressed answer is cut")

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            return response.read1(CHUNK_BYTES)
        except TimeoutError as error:
            raise _Retry(f"no data for {self.limits.timeout_seconds:g} s") from error
        except (HTTPException, OSError) as error:
            raise _Retry(f"the connection broke ({type(error).__name__})") from error


def _unpack(unpacker: zlib._Decompress | None, chunk: bytes) -> tuple[bytes, bytes]:
    """A bounded piece of what a chunk holds, and the rest of the chunk."""
    if unpacker is None:
        return chunk, b""
    try:
        return unpacker.decompress(chunk, CHUNK_BYTES), unpacker.unconsumed_tail
    except zlib.error as error:
        raise _Retry("the compressed answer is damaged") from error
