"""A fingerprint is the same in all builds and on all machines, and never that of another leak."""

from __future__ import annotations

from dataclasses import replace

from builders.fleet import Life, dump_of, module, place, stack_of

from dumpleak.fleets.fingerprints import Fingerprints
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import stripped_snapshot
from dumpleak.model.totals import Totals

OLD, NEW = (Life(f"PC-{n}", "app.exe", version, 1, n) for n, version in ((1, "1.2"), (2, "1.3")))


def snapshot_of(life: Life, *sites: tuple[Site, int, int]) -> Snapshot:
    groups = {site.key: (site, Totals(n, n * size, n * size, size)) for site, n, size in sites}
    return replace(dump_of(life, (), 0)[0], groups=groups)


def prints(snapshot: Snapshot) -> list[str]:
    known = Fingerprints(snapshot)
    return [known.of(site, totals) for site, totals in snapshot.groups.values()]


def stack(life: Life, *functions: str, named: bool = True, windows: str = "RtlUserThread") -> Site:
    app = module(life, "app.exe", 0x1000 * life.number, life.version)
    ntdll = module(life, "ntdll.dll", 0x2000, f"10.{life.number}")
    own = [place(function, app, named=named) for function in functions]
    return stack_of((place("RtlAllocateHeap", ntdll, skipped=True), *own, place(windows, ntdll)))


def test_a_named_stack_is_one_in_two_builds_of_the_program_and_of_windows() -> None:
    one, other = stack(OLD, "Cache::Insert", "main"), stack(NEW, "Cache::Insert", "main")
    assert one.key != other.key
    assert prints(snapshot_of(OLD, (one, 9, 96))) == prints(snapshot_of(NEW, (other, 70, 112)))
    newer = stack(NEW, "Cache::Insert", "main", windows="RtlpUserThreadStart")
    assert prints(snapshot_of(OLD, (one, 9, 96))) == prints(snapshot_of(NEW, (newer, 7, 96)))


def test_other_functions_are_other_leaks() -> None:
    sites = [stack(OLD, name, "main") for name in ("A", "B")] + [stack(OLD, "A", "worker")]
    assert len(set(prints(snapshot_of(OLD, *((site, 5, 64) for site in sites))))) == 3


def test_a_stack_without_names_is_known_by_its_modules_and_the_size_of_its_blocks() -> None:
    one, other = (stack(life, "f", "main", named=False) for life in (OLD, NEW))
    assert prints(snapshot_of(OLD, (one, 9, 96))) == prints(snapshot_of(NEW, (other, 70, 96)))
    assert prints(snapshot_of(OLD, (one, 9, 96))) != prints(snapshot_of(NEW, (other, 70, 80)))


def test_two_stacks_without_names_and_of_one_size_stay_two() -> None:
    sites = [stack(OLD, name, "main", named=False) for name in ("f", "g")]
    found = prints(snapshot_of(OLD, *((site, 9, 96) for site in sites)))
    assert len(set(found)) == 2
    # And they are the same two on another machine with that build.
    there = [stack(replace(OLD, computer="PC-7"), name, "main", named=False) for name in ("g", "f")]
    again = prints(snapshot_of(OLD, *((site, 3, 96) for site in there)))
    assert set(again) == set(found)


def shape(size: int, heap: str = "heap 1", image: str = "") -> Site:
    arrow = f" -> {image}" if image else ""
    key = f"shape|{heap}|nt|{size}|{image}"
    return Site(SiteKind.SHAPE, key, f"{size} bytes in {heap} (nt){arrow}")


def test_shapes_are_known_by_size_heap_image_and_program() -> None:
    sites = [shape(48), shape(64), shape(48, "heap 2"), shape(48, image="widgets.dll")]
    found = prints(snapshot_of(OLD, *((site, 5, 48) for site in sites)))
    assert len(set(found)) == 4
    assert prints(snapshot_of(NEW, *((site, 1, 48) for site in sites))) == found
    elsewhere = snapshot_of(replace(OLD, program="other.exe"), *((site, 5, 48) for site in sites))
    assert not set(prints(elsewhere)) & set(found)


def test_what_a_shape_says_of_contents_is_no_part_of_it() -> None:
    said = replace(shape(48), name="48 bytes in heap 1 (segment), UTF-16 text")
    assert prints(snapshot_of(OLD, (said, 1, 48))) == prints(snapshot_of(OLD, (shape(48), 1, 48)))


def test_tags_are_known_by_tag_driver_and_pool() -> None:
    def tag(name: str, driver: str, pool: str) -> Site:
        key = f"tag|{name}|{pool}"
        return Site(SiteKind.TAG, key, f"{name} {pool}, {driver}", tag=name, driver=driver)

    sites = [
        tag("Leak", "a.sys", "paged"),
        tag("Leak", "a.sys", "nonpaged"),
        tag("File", "a.sys", "paged"),
    ]
    found = prints(snapshot_of(OLD, *((site, 5, 48) for site in sites)))
    assert len(set(found)) == 3
    other = prints(snapshot_of(OLD, (tag("Leak", "b.sys", "paged"), 5, 48)))
    assert other[0] not in found
    assert prints(snapshot_of(NEW, *((site, 7, 64) for site in sites))) == found


def test_snapshots_without_names_have_the_same_fingerprints() -> None:
    sites = [
        stack(OLD, "Cache::Insert", "main"),
        stack(OLD, "f", named=False),
        shape(48, image="widgets.dll"),
        Site(SiteKind.TYPE, "type|app.exe|.?AVWidget@@", "Widget", type="Widget"),
    ]
    whole = snapshot_of(OLD, *((site, 5, 48) for site in sites))
    assert prints(stripped_snapshot(whole, ())) == prints(whole)
    assert prints(stripped_snapshot(whole, ("app.exe",))) == prints(whole)
