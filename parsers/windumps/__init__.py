"""windumps: what is in a Windows dump file."""

from windumps.dump import Dump, Thread
from windumps.dumps import open_dump

__all__ = ["Dump", "Thread", "open_dump"]
