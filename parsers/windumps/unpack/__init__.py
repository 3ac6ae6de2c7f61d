"""Containers: what a dump or a symbol file comes packed in."""
