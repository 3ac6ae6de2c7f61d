"""User-mode minidumps."""
