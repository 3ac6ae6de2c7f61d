"""Containers that the memory proves: one file a kind of layout, one row each in `find.py`."""
