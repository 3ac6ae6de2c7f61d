"""Two snapshots or more: whether they can be compared, and what changed."""
