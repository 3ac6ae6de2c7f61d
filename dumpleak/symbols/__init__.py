"""Symbols for what a dump holds."""
