"""Ctrl-C before the command line is read: quiet, as it is later.

Importing takes long enough to be interrupted, and no code of ours could catch what Python raises then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import PurePath

INTERRUPTED = 130  # 128 and the number of the signal, as shells have it


def watch_start() -> bool:
    """Ends this process without a traceback when Ctrl-C comes, until `start_is_over`.

    Returns:
        True when this is the command's process. Nothing is done in a program that uses the package: there
        Ctrl-C is the program's.
    """
    if not _is_command() or threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    return True


def start_is_over() -> None:
    """From here on Ctrl-C raises `KeyboardInterrupt`, so that temporary files are removed."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    if sys.argv[0] == "-m":  # so it is called until Python has found the module to run
        return bool({"dumpleak", "-mdumpleak"} & set(sys.orig_argv))
    return PurePath(sys.argv[0]).stem == "dumpleak"


def _end(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)
