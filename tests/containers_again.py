"""Containers checked by walking them one word after the other, in plain Python, with numbers of its own."""

from __future__ import annotations

from dumpleak.pointers.patterns.container import Found
from dumpleak.pointers.patterns.pointer_table import PointerTable


class Again:
    """What a recogniser says, looked at again.

    Args:
        table: Where the memory is, and the used blocks.
    """

    def __init__(self, table: PointerTable) -> None:
        self.size = table.width
        self._memory = table.memory
        starts, sizes = table.index.address.tolist(), table.index.size.tolist()
        self.blocks = dict(zip(starts, sizes, strict=True))
        self._starts = starts

    def word(self, address: int, size: int = 0) -> int:
        raw = self._memory.read_available(address, size or self.size)
        assert len(raw) == (size or self.size)
        return int.from_bytes(raw, "little")

    def confirm(self, found: Found) -> None:
        """Fails where the memory does not bear it out."""
        members = {self._starts[number] for number in found.members.tolist()}
        store = [self._starts[number] for number in found.store.tolist()]
        assert len(members) == len(found.members) == found.count
        name = found.pattern
        if name.startswith(("std::list (MSVC)", "std::unordered")):
            head = self.word(found.place)
            assert head == store[0]
            assert self.word(found.place + self.size) == found.count
            assert self._around(head, 0) == members
        elif name.startswith(("list of LIST_ENTRYs", "std::list (libstdc++)")):
            offset = self._offset(name)
            assert self._around(found.place, offset) == members
            if name.startswith("std::"):
                assert self.word(found.place + 2 * self.size) == found.count
        elif name.startswith("ring"):
            offset = self._offset(name)
            first = min(members)
            assert self._around(first + offset, offset) | {first} == members
        elif name.endswith("_set (MSVC)") or name == "std::map or std::set (MSVC)":
            head = self.word(found.place)
            assert self.word(found.place + self.size) == found.count
            assert self._under_msvc(head) == members
        elif name == "std::map or std::set (libstdc++)":
            assert self.word(found.place + 4 * self.size) == found.count
            assert self._under_gnu(found.place) == members
        elif name.startswith("list linked"):
            self._confirm_chain(members, self._offset(name))
        elif name.startswith("hash table"):
            assert self._hashed(store[0], self._offset(name)) == members
        else:
            self._confirm_array(found, store[0], members)

    @staticmethod
    def _offset(name: str) -> int:
        return int(name.rpartition("+")[2], 16) if "+0x" in name else 0

    def _around(self, start: int, offset: int) -> set[int]:
        """The blocks of a ring but for the place it begins at."""
        seen: set[int] = set()
        at, before = self.word(start), start
        while at != start:
            assert self.word(at + self.size) == before
            assert at - offset in self.blocks
            assert at - offset not in seen
            seen.add(at - offset)
            at, before = self.word(at), at
        assert self.word(start + self.size) == before
        return seen

    def _under_msvc(self, head: int) -> set[int]:
        assert self.word(head + 3 * self.size + 1, 1) == 1
        left = [(self.word(head + self.size), head)]
        seen: set[int] = set()
        while left:
            node, parent = left.pop()
            if node == head:
                continue
            assert node in self.blocks
            assert node not in seen
            assert self.word(node + self.size) == parent
            assert self.word(node + 3 * self.size + 1, 1) == 0
            seen.add(node)
            left += [(self.word(node + 2 * self.size * side), node) for side in (0, 1)]
        return seen

    def _under_gnu(self, top: int) -> set[int]:
        left = [(self.word(top + self.size), top)]
        seen: set[int] = set()
        while left:
            node, parent = left.pop()
            assert node in self.blocks
            assert node not in seen
            assert self.word(node + self.size) == parent
            seen.add(node)
            sides = (self.word(node + side * self.size) for side in (2, 3))
            left += [(side, node) for side in sides if side]
        return seen

    def _confirm_chain(self, members: set[int], offset: int) -> None:
        to = {node: self.word(node + offset) for node in members}
        (first,) = members - set(to.values())
        seen = []
        while first:
            seen.append(first)
            first = to[first]
        assert len(seen) == len(set(seen)) == len(members)
        assert len({self.blocks[node] for node in members}) == 1

    def _hashed(self, block: int, offset: int) -> set[int]:
        seen: set[int] = set()
        for bucket in range(self.blocks[block] // self.size):
            node = self.word(block + bucket * self.size)
            while node:
                assert node in self.blocks
                assert node not in seen
                seen.add(node)
                node = self.word(node + offset)
        return seen

    def _confirm_array(self, found: Found, block: int, members: set[int]) -> None:
        first, behind = block, block + self.blocks[block]
        if found.pattern.startswith("std::vector"):
            first, behind, end = (self.word(found.place + n * self.size) for n in range(3))
            assert block <= first < behind <= end <= block + self.blocks[block]
        elif "its own count agrees" in found.notes:
            behind = first + len(members) * self.size
        words = [self.word(at) for at in range(first, behind - self.size + 1, self.size)]
        leading = [word for word in words if word]
        assert len(leading) >= 0.9 * len(words)
        assert set(leading) == members
        assert len(set(leading)) == len(leading)
