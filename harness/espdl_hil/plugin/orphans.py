"""No process of a killed pytest stays behind."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@functools.cache
def die_with_parent_at_fork() -> None:
    """Let every process that this one forks from now on be killed when this one is.

    pytest-embedded forks a queue manager that waits for ever and inherits open ports and locks.
    On systems other than Linux nothing is done: there is no such signal, and fork is not
    the way that processes start.
    """
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    os.register_at_fork(after_in_child=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
