"""Images of a machine's memory: raw ones and ELF cores."""
