"""What is said: sites, totals, snapshots, coverage, accounts. No reader, no file format."""
