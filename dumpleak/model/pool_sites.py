"""Pool tags as sites: keys and names without addresses, by pool, by tag, by driver."""

from __future__ import annotations

from dumpleak.model.pool import POOLS, TagRow
from dumpleak.model.sites import Site, SiteKind
from windumps.pool_tags import tag_number, tag_text

Refuted = tuple[int, int, int, int]


OWNER_UNKNOWN = "(owner unknown)"


def site_key(number: int, pool: int | None = None) -> str:
    """The key of a tag's blocks, in one of `POOLS` or in all."""
    tag = tag_text(number)
    # Zeros are shown as "."; the number keeps such tags apart.
    same = len(tag) == 4 and tag_number(tag) == number
    key = f"{SiteKind.TAG}|{tag if same else f'{number:08x}'}"
    return key if pool is None else f"{key}|{POOLS[pool]}"


def site_name(number: int, pool: int | None, named: str | None) -> str:
    """What a tag's blocks are called, in one of `POOLS` or in all; `named` is that of its `Ownership`."""
    name = tag_text(number).rstrip()
    if pool is not None:
        name += f" {(*POOLS, 'pool unknown')[pool]}"
    return f"{name}, {named}" if named else name


def tag_site(row: TagRow, pool: int | None = None) -> Site:
    """The site of a tag's blocks, in one of `POOLS` or in all."""
    owner = row.owner
    name = site_name(row.number, pool, owner.named)
    return Site(SiteKind.TAG, site_key(row.number, pool), name, tag=row.tag, driver=owner.driver)


def driver_of(driver: str | None) -> Site:
    """The group of all tags of a driver."""
    name = driver or OWNER_UNKNOWN
    return Site(SiteKind.GROUP, f"driver|{name.lower()}", name, driver=driver)
