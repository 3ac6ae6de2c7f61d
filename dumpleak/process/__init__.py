"""An opened process and what it contains: heaps, regions, limits."""
