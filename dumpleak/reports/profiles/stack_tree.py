"""Sites as paths from the outermost caller inwards, and the tree they make.

Flame graphs and the formats of other tools need stacks. A site that a recorded stack names has one; the
others get a short path of their kind and name, so that their bytes are not lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals

if TYPE_CHECKING:
    from dumpleak.compare.answers import Comparison
    from dumpleak.compare.trend import Trend

_KIND_NAMES = {
    SiteKind.SOURCE: "(source lines)",
    SiteKind.TYPE: "(types)",
    SiteKind.TAG: "(pool tags)",
    SiteKind.SHAPE: "(shapes)",
    SiteKind.GROUP: "(groups)",
}
SHAPE_KEY_PARTS = 5
MAX_DEPTH = 128  # frames of one path; the innermost are kept


@dataclass(frozen=True)
class SitePair:
    """One site in both dumps, changed or not.

    Attributes:
        site: Who allocated.
        base: Totals before; zeros when the site was not there.
        current: Totals after.
    """

    site: Site
    base: Totals
    current: Totals


def site_pairs(
    base: dict[str, tuple[Site, Totals]], current: dict[str, tuple[Site, Totals]]
) -> list[SitePair]:
    """All sites of two snapshots, in the order of their keys; of a renamed one the last name."""
    nothing = None, Totals()
    pairs = []
    for key in sorted(base.keys() | current.keys()):
        site, after = current.get(key, nothing)
        older, before = base.get(key, nothing)
        shown = site or older
        if shown is not None and (before.count or after.count):
            pairs.append(SitePair(shown, before, after))
    return pairs


def root_name(snapshot: Snapshot) -> str:
    """What all groups are called together: "all sites", "all threads"."""
    return f"all {snapshot.members}" if snapshot.is_listed else "all sites"


def compared_pairs(answer: Comparison | Trend) -> list[SitePair]:
    """All sites of a comparison, private memory outside heaps included where it is compared."""
    base, current = answer.base, answer.current
    pairs = site_pairs(base.groups, current.groups)
    return pairs if answer.private_unknown else pairs + site_pairs(base.private, current.private)


def path_of(site: Site) -> tuple[str, ...]:
    """The site's path, outermost first: its stack down to the frame that names it (what comes behind
    is the allocator), or its kind and name.
    """
    if site.frames:
        first = site.frames.index(site.name) if site.name in site.frames else 0
        return tuple(reversed(site.frames[first : first + MAX_DEPTH]))
    top = _KIND_NAMES.get(site.kind, "(no stack)")
    parts = site.key.split("|")
    if (
        site.kind is SiteKind.SHAPE and len(parts) == SHAPE_KEY_PARTS
    ):  # kind, heap, its kind, size, image
        return top, f"{parts[1]} ({parts[2]})", parts[4] or "(no image)", site.name
    return top, site.name


@dataclass
class Node:
    """A node of the tree; numbers are sums over all sites at and below it.

    Attributes:
        name: Frame, kind or name.
        base_bytes: Before.
        current_bytes: After.
        grew_bytes: Of the sites that grew, by how much.
        shrank_bytes: Of those that shrank, by how much (not negative).
        delta_count: Blocks, after minus before.
        children: By name.
    """

    name: str
    base_bytes: int = 0
    current_bytes: int = 0
    grew_bytes: int = 0
    shrank_bytes: int = 0
    delta_count: int = 0
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """What decides which nodes are shown when there are too many: change above size."""
        return 8 * (self.grew_bytes + self.shrank_bytes) + self.base_bytes + self.current_bytes

    def add(self, other: Node | SitePair) -> None:
        """Adds the numbers of another node or of a site."""
        if isinstance(other, Node):
            self.base_bytes += other.base_bytes
            self.current_bytes += other.current_bytes
            self.grew_bytes += other.grew_bytes
            self.shrank_bytes += other.shrank_bytes
            self.delta_count += other.delta_count
            return
        delta = other.current.bytes - other.base.bytes
        self.base_bytes += other.base.bytes
        self.current_bytes += other.current.bytes
        self.grew_bytes += max(delta, 0)
        self.shrank_bytes += max(-delta, 0)
        self.delta_count += other.current.count - other.base.count


def build_tree(pairs: Iterable[SitePair], name: str) -> Node:
    """The tree of all sites.

    Args:
        pairs: The sites.
        name: Of the root.
    """
    root = Node(name)
    for pair in pairs:
        node = root
        node.add(pair)
        for step in path_of(pair.site):
            node = node.children.setdefault(step, Node(step))
            node.add(pair)
    return root


def prune(root: Node, limit: int) -> Node:
    """The tree with its `limit` heaviest nodes; what is left out stands as one node under each
    parent, so that sums stay right.
    """
    nodes: list[tuple[int, int, int, Node]] = []
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        nodes.append((-node.weight, depth, len(nodes), node))
        stack.extend((child, depth + 1) for child in node.children.values())
    if len(nodes) <= limit:
        return root
    # A parent weighs at least as much as its child and stands above it, so it is kept as well.
    kept = {id(entry[3]) for entry in sorted(nodes)[:limit]}
    for entry in nodes:
        node = entry[3]
        small = [child for child in node.children.values() if id(child) not in kept]
        if small and id(node) in kept:
            rest = Node(f"({len(small)} smaller)")
            for child in small:
                rest.add(child)
                del node.children[child.name]
            node.children["\0"] = rest  # no frame has this name
    return root
