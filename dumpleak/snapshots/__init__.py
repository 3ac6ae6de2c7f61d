"""Snapshot files (`.dlsnap`): what comparisons need of a dump, and nothing of its memory.

A snapshot file is one Parquet file. Its rows are the used blocks, so that pandas, DuckDB and Polars read
it as it is (`columns.py` lists the columns); everything else stands as JSON in the file's metadata under
the key `dumpleak` (`metadata.py`).
"""
