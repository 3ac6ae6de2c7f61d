"""Which modules count as rebuilt, and what their sites are matched by."""

from __future__ import annotations

from collections.abc import Iterable

from dumpleak.compare.builds import Aligned, align_builds, more_is_named
from dumpleak.model.sites import Place, Site, SiteKind
from dumpleak.model.totals import Totals
from windumps.images.modules import Module, PdbIdentity

A, B, C = ("A" * 32, "B" * 32, "C" * 32)
Groups = dict[str, tuple[Site, Totals]]


def _module(name: str, guid: str) -> Module:
    return Module(name, name, 0x10000, 0x1000, 1, pdb=PdbIdentity("x.pdb", guid, 1))


def _place(module: str, guid: str, rva: int, function: str = "", skipped: bool = False) -> Place:
    return Place(module, f"{guid}1", rva, function, skipped)


def _groups(*stacks: tuple[int, Iterable[Place]]) -> Groups:
    found: Groups = {}
    for size, places in stacks:
        parts = tuple(places)
        key = "stack|" + "|".join(f"{p.image}+{p.rva:x}" for p in parts)
        site = Site(SiteKind.STACK, key, f"{size} bytes", places=parts)
        found[key] = site, Totals(1, size, size + 16, size)
    return found


def _aligned(base: Groups, current: Groups, *modules: list[Module]) -> Aligned:
    return align_builds((base, current), modules or ([], []))


def _codes(aligned: Aligned) -> list[str]:
    return [item.code for item in aligned.diagnostics]


def test_one_build_everywhere_changes_nothing() -> None:
    groups = _groups((10, [_place("app.exe", A, 1)]), (20, [_place("app.exe", A, 2)]))
    aligned = _aligned(groups, groups)
    assert aligned.groups == [groups, groups]
    assert (aligned.notes, aligned.diagnostics) == ({}, [])


def test_two_images_of_one_name_in_both_processes_are_no_rebuild() -> None:
    # The two ntdlls of a WoW64 process, only one of which has sites in the base.
    both = [_module("ntdll.dll", A), _module("ntdll.dll", B)]
    base = _groups((10, [_place("ntdll.dll", A, 1)]))
    current = _groups((10, [_place("ntdll.dll", A, 1)]), (10, [_place("ntdll.dll", B, 1)]))
    aligned = _aligned(base, current, both, both)
    assert aligned.groups == [base, current]
    assert aligned.diagnostics == []
    assert _codes(_aligned(base, current)) == ["rebuilt-apart"], "the lists of images decide"


def test_a_module_that_only_one_process_has_is_no_rebuild() -> None:
    base = _groups((10, [_place("app.exe", A, 1)]))
    current = _groups((10, [_place("plugin.dll", B, 2), _place("app.exe", A, 1)]))
    assert _aligned(base, current).groups == [base, current]


def test_sites_of_two_builds_meet_under_one_key_of_names_without_offsets() -> None:
    base = _groups((10, [_place("w.dll", C, 5), _place("app.exe", A, 1, "f")]))
    current = _groups((30, [_place("w.dll", C, 5), _place("app.exe", B, 900, "f")]))
    aligned = _aligned(base, current)
    (key,) = aligned.groups[0].keys() & aligned.groups[1].keys()
    assert [groups[key][1].bytes for groups in aligned.groups] == [10, 30]
    assert aligned.notes[key] == "matched by function names: app.exe is not the same build"
    assert _codes(aligned) == ["rebuilt-by-name"]
    # The frame in the module that stayed still counts by its place.
    elsewhere = _groups((30, [_place("w.dll", C, 6), _place("app.exe", B, 900, "f")]))
    apart = _aligned(base, elsewhere).groups
    assert not apart[0].keys() & apart[1].keys()


def test_names_spelt_in_two_ways_are_one() -> None:
    base = _groups((10, [_place("app.exe", A, 1, "Pool<class Node, int>::get")]))
    current = _groups((10, [_place("app.exe", B, 1, "Pool<Node,int>::get")]))
    first, second = _aligned(base, current).groups
    assert first.keys() == second.keys()


def test_sites_that_one_key_takes_together_add_up_and_show_the_largest() -> None:
    base = _groups((10, [_place("app.exe", A, 1, "f")]), (70, [_place("app.exe", A, 2, "f")]))
    current = _groups((5, [_place("app.exe", B, 9, "f")]))
    aligned = _aligned(base, current)
    ((key, (site, totals)),) = aligned.groups[0].items()
    assert (site.name, totals) == ("70 bytes", Totals(2, 80, 112, 70))
    assert aligned.notes[key].endswith("2 and 1 sites of the dumps taken together")


def test_names_on_one_side_only_match_nothing() -> None:
    base = _groups((10, [_place("app.exe", A, 1, "f")]))
    current = _groups((10, [_place("app.exe", B, 1)]))
    aligned = _aligned(base, current)
    assert aligned.groups == [base, current]
    assert _codes(aligned) == ["rebuilt-apart"]
    assert "(2 in all)" in aligned.diagnostics[0].message


def test_an_allocators_frame_without_names_counts_by_its_module() -> None:
    own = _place("app.exe", C, 7)
    base = _groups((10, [_place("ntdll.dll", A, 1, skipped=True), own]))
    current = _groups((10, [_place("ntdll.dll", B, 2, skipped=True), own]))
    aligned = _aligned(base, current)
    assert aligned.groups[0].keys() == aligned.groups[1].keys()
    assert _codes(aligned) == ["rebuilt-by-module"]
    # Names on one side must not keep them apart.
    named = _groups((10, [_place("ntdll.dll", B, 2, "RtlAllocateHeap", True), own]))
    first, second = _aligned(base, named).groups
    assert first.keys() == second.keys()


def test_code_outside_images_counts_as_itself() -> None:
    outside = Place("", "-", 0, "", True)
    base = _groups((10, [outside, _place("app.exe", A, 1, "f")]))
    current = _groups((10, [outside, _place("app.exe", B, 9, "f")]))
    first, second = _aligned(base, current).groups
    assert first.keys() == second.keys()


def test_sites_keep_their_own_keys_inside() -> None:
    base = _groups((10, [_place("app.exe", A, 1, "f")]))
    current = _groups((10, [_place("app.exe", B, 9, "f")]))
    for before, after in zip((base, current), _aligned(base, current).groups, strict=True):
        assert [site for site, _ in after.values()] == [site for site, _ in before.values()]


def test_the_site_that_symbols_name_is_shown() -> None:
    bare, named = (
        next(iter(_groups((10, [_place("app.exe", A, 1, name)])).values()))[0] for name in ("", "f")
    )
    assert more_is_named(named, bare)
    assert not more_is_named(bare, named)
    assert not more_is_named(named, named)
