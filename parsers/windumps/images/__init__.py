"""Images (EXE, DLL, SYS): their lists, headers, sections and type information."""
