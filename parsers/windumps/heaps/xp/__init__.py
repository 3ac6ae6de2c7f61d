"""Heaps of Windows XP and Server 2003, look-aside lists and the first low fragmentation heap included."""
