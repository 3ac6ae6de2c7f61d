"""From a dump to a snapshot, or to another answer about one dump."""
