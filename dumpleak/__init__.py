"""dumpleak: finds memory leaks in Windows dump files, offline.

`dumpleak.api` describes the functions here.
"""

from dumpleak.interrupts import watch_start

__version__ = "0.1.0"  # before the other imports: some of them need it
__is_command__ = watch_start()  # for as long as the imports take

# These names of functions are those of modules too, which is why they come last: code of the package imports
# names from its modules and never the modules themselves.
from dumpleak.api import (
    account_table,
    blocks_table,
    compare,
    open_dump,
    sites_table,
    snapshot,
    trend,
)
from dumpleak.survey.recording import write_snapshot

__all__ = [
    "__version__",
    "account_table",
    "blocks_table",
    "compare",
    "open_dump",
    "sites_table",
    "snapshot",
    "trend",
    "write_snapshot",
]
