"""A process from the inside: TEBs, PEB, heap list, recorded stacks, handles."""
