"""Large allocations: the big-page table."""
