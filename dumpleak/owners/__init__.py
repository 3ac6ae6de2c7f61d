"""Which driver a pool tag belongs to, and how sure that is."""
