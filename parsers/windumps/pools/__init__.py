"""The kernel's pools: what each tag holds, and where its blocks are."""
