"""rpmalloc 2: the heaps of programs that are linked with it."""
