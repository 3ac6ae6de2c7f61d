"""Kernel crash dumps: complete, bitmap, ranges, triage."""
