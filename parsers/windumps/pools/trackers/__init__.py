"""Tag trackers: what the kernel itself counted of each tag, and the audit against blocks."""
