"""An opened system and what it contains: its counters, pools and processes."""
