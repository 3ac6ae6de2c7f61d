"""dumpleak: finds memory leaks in Windows dump files, offline."""

__version__ = "0.1.0"
