"""Answers written: `document.py` says how to add one, `formats.py` how to add a format."""
