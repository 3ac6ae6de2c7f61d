"""mimalloc 2 and 3: the heaps of programs that are linked with it or override malloc by it."""
