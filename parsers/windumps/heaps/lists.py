"""Walks of linked lists, as heaps use them; see `windumps.memory.lists`."""

from windumps.memory.lists import MAX_NODES, list_nodes

__all__ = ["MAX_NODES", "list_nodes"]
