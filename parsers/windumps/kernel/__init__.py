"""A kernel from the inside: KDBG, drivers, processes, handles, counters, variables."""
