"""Layouts of Windows structures: rows by build, a table for each component."""
