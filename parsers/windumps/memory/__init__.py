"""Memory of a process or a kernel, as readers of heaps and pools see it."""

from windumps.memory.address_space import AddressSpace, Extents, Presence
from windumps.memory.page_tables import PageTableMemory
from windumps.memory.regions import Regions
from windumps.memory.runs import RunMemory

__all__ = ["AddressSpace", "Extents", "PageTableMemory", "Presence", "Regions", "RunMemory"]
