"""Kernel pool: which tag grew, which driver owns it, where the blocks are."""
