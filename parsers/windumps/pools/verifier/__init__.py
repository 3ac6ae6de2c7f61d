"""Driver Verifier: its settings, the blocks it tracks by driver and caller, the stacks it logged."""
