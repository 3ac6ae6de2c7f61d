"""Pool pages with header chains (before Windows 10 1903)."""
