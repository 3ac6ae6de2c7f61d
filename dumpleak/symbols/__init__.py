"""Symbols for the images of a dump: which it wants, which are there, what they name."""
