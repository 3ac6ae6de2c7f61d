"""Fleets: thousands of dumps, and which leaks are out there, where, since when."""
