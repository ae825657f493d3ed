"""Start of a program, before it imports PyTorch, which takes seconds. This module must not import torch."""

import os
import sys

from util.openmp import configure_openmp
from util.signals import quiet_sigint_during_import

NOTICE = "importing PyTorch ..."
PRINTS_ONLY = {"-h", "--help", "--version"}  # often into a pager, which shares the terminal

_notice_shown = False


def prepare_import() -> None:
    """Set what PyTorch reads when it is imported, let Ctrl-C end the program, and show on a terminal that it works."""
    global _notice_shown
    quiet_sigint_during_import()
    configure_openmp()
    is_first_process = os.environ.get("RANK", "0") == "0"  # torchrun sets it
    streams = [sys.stderr] if PRINTS_ONLY.isdisjoint(sys.argv) else [sys.stderr, sys.stdout]
    if is_first_process and all(stream is not None and stream.isatty() for stream in streams):
        print(NOTICE, end="", file=sys.stderr, flush=True)
        _notice_shown = True


def clear_notice() -> None:
    """Erase the notice of `prepare_import`, if it is shown. Call it before anything else is printed."""
    global _notice_shown
    if _notice_shown:
        print("\r" + " " * len(NOTICE), end="\r", file=sys.stderr, flush=True)
        _notice_shown = False
