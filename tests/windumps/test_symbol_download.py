"""Downloads from a symbol server on loopback: what comes, and everything that can go wrong."""

from __future__ import annotations

import gzip
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from builders.cabinet_builder import mszip
from builders.pdb_builder import GUID, PdbBuilder
from builders.symbol_server import Handler, Server, serving

from windumps import files
from windumps.images.modules import Module, PdbIdentity
from windumps.symbols.download import Downloader, Limits
from windumps.symbols.errors import DownloadError, NotOnServerError, UnreachableServerError
from windumps.symbols.paths import parse_symbol_path
from windumps.symbols.store import SymbolStore
from windumps.symbols.wanted import Status, SymbolFile, wanted

PDB = PdbBuilder().public("key", 2, 8).build()
FAST = Limits(timeout_seconds=0.5, total_seconds=20, attempts=3, backoff_seconds=0.5)
PLACE = f"/store/app.pdb/{GUID}1"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _times(*answers: Handler) -> Handler:
    """Each answer once, then the last."""
    left = list(answers)
    return lambda server: (left.pop(0) if len(left) > 1 else left[0])(server)


def _status(code: int) -> Handler:
    return lambda server: server.send_error(code)


def _give(data: bytes = PDB, **how: object) -> Handler:
    return lambda server: server.give(data, **how)  # type: ignore[arg-type]


def _redirect(target: str) -> Handler:
    def answer(server: Server) -> None:
        server.send_response(302)
        server.send_header("Location", target)
        server.send_header("Content-Length", "0")
        server.end_headers()

    return answer


def _cut(server: Server) -> None:
    server.give(PDB[:600], length=len(PDB))
    server.connection.shutdown(socket.SHUT_RDWR)
    server.close_connection = True


def _silent(server: Server) -> None:
    server.give(PDB[:600], length=len(PDB))
    time.sleep(1.5)
    server.close_connection = True


def _hang_up(server: Server) -> None:
    server.connection.shutdown(socket.SHUT_RDWR)
    server.close_connection = True


def _endless(server: Server) -> None:
    server.send_response(200)
    server.end_headers()
    with_room = 4000
    while with_room:
        with_room -= 1
        try:
            server.wfile.write(bytes(1024))
        except OSError:
            break
    server.close_connection = True


def _fetch(
    tmp_path: Path, answer: Handler, limits: Limits = FAST
) -> tuple[Path, list[float], list[tuple[str, int, int | None]]]:
    waits: list[float] = []
    seen: list[tuple[str, int, int | None]] = []
    target = tmp_path / "cache" / "app.pdb"
    with serving({"/file": answer}) as (url, _):
        downloader = Downloader(limits, lambda *s: seen.append(s), waits.append)
        downloader.fetch(f"{url}/file", target, lambda _: None)
    return target, waits, seen


def _refused(tmp_path: Path, answer: Handler, limits: Limits = FAST) -> str:
    with pytest.raises(DownloadError) as caught:
        _fetch(tmp_path, answer, limits)
    # Neither the file nor a part of it stays behind.
    assert list((tmp_path / "cache").iterdir()) == []
    return str(caught.value)


def test_a_file_is_downloaded_with_progress(tmp_path: Path) -> None:
    target, waits, seen = _fetch(tmp_path, _give())
    assert target.read_bytes() == PDB
    assert [p.name for p in target.parent.iterdir()] == ["app.pdb"]
    assert waits == []
    assert [(received, total) for _, received, total in seen][-1] == (len(PDB), len(PDB))


@pytest.mark.parametrize(
    "trouble",
    [_status(503), _status(429), _cut, _silent, _hang_up],
    ids=["503", "429", "cut", "silent", "hang up"],
)
def test_a_trouble_that_passes_is_retried(tmp_path: Path, trouble: Handler) -> None:
    target, waits, _ = _fetch(tmp_path, _times(trouble, trouble, _give()))
    assert target.read_bytes() == PDB
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (_status(500), "answers 500 (3 tries)"),
        (_cut, f"600 of {len(PDB)} bytes (3 tries)"),
        (_silent, "no data for 0.5 s (3 tries)"),
        (_hang_up, "(3 tries)"),
        (_give(gzip.compress(PDB)[:-12], Content_Encoding="gzip"), "is cut (3 tries)"),
        (_give(b"no gzip at all", Content_Encoding="gzip"), "damaged (3 tries)"),
    ],
    ids=["500", "cut", "silent", "hang up", "cut gzip", "no gzip"],
)
def test_a_trouble_that_stays_ends_after_the_tries(
    tmp_path: Path, trouble: Handler, words: str
) -> None:
    assert words in _refused(tmp_path, trouble)


def test_a_missing_file_is_asked_for_once(tmp_path: Path) -> None:
    with serving({}) as (url, asked):
        downloader = Downloader(FAST)
        with pytest.raises(NotOnServerError):
            downloader.fetch(f"{url}/file", tmp_path / "app.pdb", lambda _: None)
    assert asked == ["/file"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_status(403), "refuses (403)"),
        (_status(418), "answers 418"),
        (_redirect("/file"), "redirect"),
        (_redirect("file:///etc/passwd"), "302"),
        (_redirect("ftp://127.0.0.1/app.pdb"), "302"),
        (_give(length=1 << 40), "more than the limit"),
        (_give(Content_Encoding="br"), "br"),
    ],
    ids=["403", "418", "redirect loop", "to a file", "to ftp", "too long", "encoding"],
)
def test_an_answer_that_will_not_change_is_not_asked_for_again(
    tmp_path: Path, answer: Handler, words: str
) -> None:
    assert words in _refused(tmp_path, answer)


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    answers = {"/file": _redirect("/there"), "/there": _give()}
    with serving(answers) as (url, asked):
        Downloader(FAST).fetch(f"{url}/file", tmp_path / "app.pdb", lambda _: None)
    assert asked == ["/file", "/there"]
    assert (tmp_path / "app.pdb").read_bytes() == PDB


def test_more_bytes_than_the_limit_are_not_taken(tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=2, max_bytes=100_000, attempts=1)
    assert "limit" in _refused(tmp_path, _endless, limits)
    bomb = gzip.compress(bytes(50_000_000))
    assert "limit" in _refused(tmp_path, _give(bomb, Content_Encoding="gzip"), limits)


def test_a_download_ends_at_its_time(tmp_path: Path) -> None:
    def drip(server: Server) -> None:
        server.send_response(200)
        server.end_headers()
        for _ in range(200):
            try:
                server.wfile.write(b"x")
                time.sleep(0.02)
            except OSError:
                break
        server.close_connection = True

    limits = Limits(timeout_seconds=2, total_seconds=0.3, attempts=1)
    assert "not done after 0.3 s" in _refused(tmp_path, drip, limits)


def test_a_server_that_is_not_there_is_retried_and_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="cannot be reached"):
        Downloader(FAST, sleep=lambda _: None).fetch(
            f"http://127.0.0.1:{port}/file", tmp_path / "app.pdb", lambda _: None
        )


def test_gzip_on_the_way_is_undone(tmp_path: Path) -> None:
    target, _, _ = _fetch(tmp_path, _give(gzip.compress(PDB), Content_Encoding="gzip"))
    assert target.read_bytes() == PDB


# -- a whole symbol server ------------------------------------------------------------------------


def _find(tmp_path: Path, answers: dict[str, Handler]) -> tuple[SymbolFile, list[str]]:
    module = Module("app.dll", "app.dll", 0, 1, 1, pdb=PdbIdentity("app.pdb", GUID, 1))
    with serving(answers) as (url, asked):
        path = parse_symbol_path(f"srv*{tmp_path / 'cache'}*{url}/store")
        downloader = Downloader(FAST, sleep=lambda _: None)
        return SymbolStore(path, downloader).find(wanted([module])[0]), asked


def test_a_pdb_from_a_server_is_kept_in_the_cache_as_in_a_store(tmp_path: Path) -> None:
    found, asked = _find(tmp_path, {f"{PLACE}/app.pdb": _give()})
    assert found.status is Status.FOUND
    assert found.path == tmp_path / "cache" / "app.pdb" / f"{GUID}1" / "app.pdb"
    assert found.path.read_bytes() == PDB
    assert asked == [f"{PLACE}/app.pdb"]
    again, asked = _find(tmp_path, {})
    assert (again.path, asked) == (found.path, [])


def test_a_compressed_pdb_from_a_server_is_kept_unpacked(tmp_path: Path) -> None:
    found, asked = _find(tmp_path, {f"{PLACE}/app.pd_": _give(mszip(PDB))})
    assert found.path is not None
    assert found.path.read_bytes() == PDB
    assert [p.name for p in found.path.parent.iterdir()] == ["app.pdb"]
    assert asked == [f"{PLACE}/app.pdb", f"{PLACE}/app.pd_"]


def test_where_a_servers_pointer_leads_is_told_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "app.pdb"
    elsewhere.write_bytes(PDB)
    found, asked = _find(tmp_path, {f"{PLACE}/file.ptr": _give(f"PATH:{elsewhere}".encode())})
    assert (found.status, found.path) == (Status.MISSING, None)
    assert f"points to PATH:{elsewhere}" in found.notes[-1]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (PdbBuilder(guid="F" * 32).build(), Status.WRONG, "another image"),
        (PdbBuilder(age=9).build(), Status.WRONG, "age"),
        (b"<html>sign in first</html>", Status.UNREADABLE, "not a PDB"),
        (mszip(PDB)[:-30], Status.UNREADABLE, "fetch it again"),
    ],
    ids=["another image", "another age", "a page", "a cut cabinet"],
)
def test_what_is_not_the_pdb_wanted_is_not_kept(
    tmp_path: Path, data: bytes, status: Status, words: str
) -> None:
    found, _ = _find(tmp_path, {f"{PLACE}/app.pdb": _give(data)})
    assert (found.status, found.path) == (status, None)
    assert words in found.notes[0]
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_a_server_that_does_not_answer_is_asked_for_one_file_only(tmp_path: Path) -> None:
    first, second = (
        Module(name, name, 0, 1, 1, pdb=PdbIdentity(f"{name}.pdb", GUID, 1)) for name in "ab"
    )
    with serving({f"/store/a.pdb/{GUID}1/a.pdb": _status(503)}) as (url, asked):
        path = parse_symbol_path(f"srv*{tmp_path}*{url}/store")
        store = SymbolStore(path, Downloader(FAST, sleep=lambda _: None))
        found = [store.find(wanted([module])[0]) for module in (first, second)]
    assert [file.status for file in found] == [Status.MISSING, Status.MISSING]
    assert "answers 503 (3 tries)" in found[0].notes[0]
    assert "not asked again" in found[1].notes[0]
    assert len(asked) == 3


def test_nothing_is_downloaded_without_a_downloader(tmp_path: Path) -> None:
    module = Module("app.dll", "app.dll", 0, 1, 1, pdb=PdbIdentity("app.pdb", GUID, 1))
    with serving({f"{PLACE}/app.pdb": _give()}) as (url, asked):
        store = SymbolStore(parse_symbol_path(f"srv*{tmp_path}*{url}/store"))
        assert store.find(wanted([module])[0]).status is Status.MISSING
    assert asked == []


# -- one deadline, whatever is slow ----------------------------------------------------------------

HASTY = Limits(timeout_seconds=0.3, total_seconds=1.0, attempts=1)


@contextmanager
def _raw_server(talk: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A server that speaks no HTTP of its own: `talk` has each connection to itself."""
    asked: list[int] = []

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(1)
            with suppress(OSError):
                talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()
            server.block_on_close = False  # some still talk


def _dripping(head: bytes, drip: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        for number in range(10_000):
            connection.sendall(drip[number % len(drip) :][:1])
            time.sleep(0.02)

    return talk


SLOW = {
    "a status line": _dripping(b"HTTP/1.0 ", b"2"),
    "headers": _dripping(b"HTTP/1.0 200 OK\r\n", b"X-A: b\r\n"),
    "a body": _dripping(b"HTTP/1.0 200 OK\r\n\r\n", b"x"),
    "a body in chunks": _dripping(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"
    ),
    "a redirect's headers": _dripping(b"HTTP/1.0 302 Found\r\nLocation: /x\r\n", b"X: b\r\n"),
    "nothing": lambda connection: time.sleep(5),
}


@pytest.mark.parametrize("slow", SLOW)
def test_a_server_that_gives_a_byte_now_and_then_is_given_up_in_time_and_not_asked_again(
    slow: str, tmp_path: Path
) -> None:
    modules = [Module(n, n, 0, 1, 1, pdb=PdbIdentity(f"{n}.pdb", GUID, 1)) for n in "abcdef"]
    with _raw_server(SLOW[slow]) as (url, asked):
        path = parse_symbol_path(f"srv*{tmp_path}*{url}/store")
        started = time.monotonic()
        store = SymbolStore(path, Downloader(HASTY))
        found = [store.find(wanted([module])[0]) for module in modules]
        assert time.monotonic() - started < 4  # `total_seconds` is 1, and nobody waits again
    assert {file.status for file in found} == {Status.MISSING}
    assert len(asked) == 1
    assert all("not asked again" in file.notes[0] for file in found[1:])
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_redirects_count_as_one_wait(tmp_path: Path) -> None:
    def again(server: Server) -> None:
        time.sleep(0.2)
        _redirect(server.path + "x")(server)

    answers = {"/file" + "x" * number: again for number in range(9)}
    with serving(answers) as (url, asked):
        with pytest.raises(UnreachableServerError, match=r"no data for 0.3 s \(1 try\)"):
            Downloader(HASTY).fetch(f"{url}/file", tmp_path / "a.pdb", lambda _: None)
        assert len(asked) < 4


def test_the_page_that_comes_with_a_redirect_is_not_read(tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        if b"/there" in connection.recv(4096):
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + PDB)
            return
        connection.sendall(b"HTTP/1.0 302 Found\r\nLocation: /there\r\n\r\n")
        for _ in range(100_000):
            connection.sendall(bytes(1 << 16))

    with _raw_server(talk) as (url, _):
        Downloader(FAST).fetch(f"{url}/file", tmp_path / "a.pdb", lambda _: None)
    assert (tmp_path / "a.pdb").read_bytes() == PDB


def test_all_files_together_have_a_deadline_too(tmp_path: Path) -> None:
    def slowly(server: Server) -> None:
        time.sleep(0.2)
        server.give(PDB)

    downloader = Downloader(Limits(all_seconds=0.5, attempts=1))
    with serving({f"/{number}": slowly for number in range(9)}) as (url, asked):
        done = 0
        while downloader.spent_seconds < 0.5 and done < 9:
            with suppress(UnreachableServerError):
                downloader.fetch(f"{url}/{done}", tmp_path / f"{done}", lambda _: None)
            done += 1
        assert 2 <= done <= 3
        seen = len(asked)
        with pytest.raises(UnreachableServerError, match=r"not asked.*all downloads are used up"):
            downloader.fetch(f"{url}/8", tmp_path / "8", lambda _: None)
        assert len(asked) == seen
    assert all(path.read_bytes() == PDB for path in tmp_path.iterdir())


def test_a_file_that_comes_too_slowly_is_given_up_before_its_time(tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=0.1, total_seconds=30, attempts=1)
    with (
        _raw_server(SLOW["a body"]) as (url, _),
        pytest.raises(UnreachableServerError, match="slower than 1024 bytes a second"),
    ):
        Downloader(limits).fetch(f"{url}/file", tmp_path / "a.pdb", lambda _: None)
    assert list(tmp_path.iterdir()) == []


# -- the disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False], ids=["size told", "size not told"])
def test_what_does_not_fit_on_the_disk_is_not_downloaded(
    told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": files.KEPT_FREE_BYTES + 100_000, "total": 1 << 40})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    answer = _give(bytes(200_000)) if told else _endless
    assert "more than the 0 MiB free in" in _refused(tmp_path, answer)


def test_a_download_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    kept = os.umask(0o022)
    try:
        target, _, _ = _fetch(tmp_path, _give())
    finally:
        os.umask(kept)
    assert target.stat().st_mode & 0o777 == 0o644


def test_what_a_killed_run_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    left = [cache / ".app.pdb.k3j_a0zz", cache / ".app.pdb.00000000unpacked"]
    kept = [
        cache / n for n in (".app.pdb.swp", ".b.pdb.k3j_a0zz", "app.pdb.k3j_a0zz", ".app.pdb.X")
    ]
    elsewhere = tmp_path / "precious"
    for path in (*left, *kept, elsewhere):
        path.write_bytes(b"part")
    link = cache / ".app.pdb.aaaaaaaa"
    link.symlink_to(elsewhere)
    folder = cache / ".app.pdb.bbbbbbbb"
    folder.mkdir()
    _fetch(tmp_path, _give())
    assert set(cache.iterdir()) == {*kept, link, folder, cache / "app.pdb"}
    assert elsewhere.read_bytes() == b"part"


def test_what_another_run_is_writing_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "app.pdb"
    target.parent.mkdir()
    with files.temporary_beside(target) as (stream, temporary):
        stream.write(b"half")
        _fetch(tmp_path, _give())
        assert temporary.exists()
        files.put_in_place(stream, temporary, target)
    assert target.read_bytes() == b"half"
    assert list(target.parent.iterdir()) == [target]


def test_a_run_that_is_killed_while_it_downloads_leaves_what_the_next_removes(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, pathlib; from windumps.symbols.download import Downloader\n"
        "Downloader().fetch(sys.argv[1], pathlib.Path(sys.argv[2]), lambda _: None)"
    )
    target = tmp_path / "cache" / "app.pdb"
    with _raw_server(SLOW["a body"]) as (url, _):
        run = subprocess.Popen([sys.executable, "-c", code, url, str(target)])
        while not (target.parent.is_dir() and list(target.parent.iterdir())):
            time.sleep(0.01)
        run.kill()
        run.wait()
    assert len(list(target.parent.iterdir())) == 1
    _fetch(tmp_path, _give())
    assert list(target.parent.iterdir()) == [target]
