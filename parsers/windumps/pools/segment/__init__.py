"""Pools that are segment heaps (from Windows 10 1903 on)."""
