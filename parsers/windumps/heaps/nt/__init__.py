"""NT heaps of Windows Vista and later: segments, virtual blocks, low fragmentation heap."""
