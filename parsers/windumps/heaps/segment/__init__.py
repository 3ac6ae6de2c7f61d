"""Segment heaps of Windows 10 and later."""
