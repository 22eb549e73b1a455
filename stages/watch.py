"""The watch: ends a stage when DVC, which has started it, is gone.

A killed DVC leaves its stage running. The next `dvc repro` would start the same training beside it.
"""

import os
import signal
import threading
import time

from lesions.common.errors import CLEAN_UP

SECONDS = 1.0  # from one look to the next
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "cmd.exe"}  # DVC starts a stage in one of them


def end_with_dvc() -> None:
    """Start a thread that sends this process SIGTERM as soon as DVC has ended."""
    if "DVC_STAGE" not in os.environ:
        return
    import psutil  # only DVC needs it: a machine without DVC may lack it

    def is_running(process: psutil.Process) -> bool:
        """Say whether a process has not ended; one that has can be listed for a while."""
        try:
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    started = [psutil.Process()]
    while (parent := started[-1].parent()) is not None:
        started.append(parent)
        if parent.name() not in SHELLS:
            break

    def watch() -> None:
        while all(map(is_running, started)):
            time.sleep(SECONDS)
        while True:  # until it ends: see _raise_interrupt in lesions/common/errors.py
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(CLEAN_UP)

    threading.Thread(target=watch, daemon=True).start()
