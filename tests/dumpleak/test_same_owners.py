"""Tags of a driver that only some dumps name: `diff` and `trend` call them as `pool` does."""

from __future__ import annotations

from dataclasses import replace

from kernel_truth import kernel_pairs

from dumpleak.compare.diff import compare
from dumpleak.compare.series import made_alike
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.pools import take_pool_snapshot
from windumps import open_dump

KEY = "tag|AcGb|nonpaged"


def _sides() -> tuple[Snapshot, Snapshot]:
    base, current = (
        take_pool_snapshot(PoolReader(open_dump(side.dump)))
        for side in kernel_pairs("tiny-pair")[0]
    )
    site, totals = current.groups[KEY]
    nameless = replace(site, name="AcGb nonpaged", driver=None)
    return base, replace(current, groups=current.groups | {KEY: (nameless, totals)})


def test_a_tag_whose_driver_was_unloaded_goes_by_the_driver_that_the_base_names() -> None:
    base, current = _sides()
    delta = next(each for each in compare(base, current).sites if each.site.key == KEY)
    assert delta.site.driver == "acmegpu.sys"
    assert delta.site.name == "AcGb nonpaged, acmegpu.sys"


def test_a_series_names_a_tag_as_the_last_dump_that_knows_its_driver() -> None:
    base, current = _sides()
    sites = [side.groups[KEY][0] for side in made_alike((current, base, current)).snapshots]
    assert [site.driver for site in sites] == ["acmegpu.sys"] * 3
    nobody = made_alike((current, current)).snapshots[0].groups[KEY][0]
    assert nobody.driver is None
