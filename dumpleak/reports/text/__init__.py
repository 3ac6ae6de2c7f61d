"""Documents for terminals and pipes."""
