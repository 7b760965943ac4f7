"""A test of ours without what pytest-embedded does around every test.

Its autouse fixtures parse ``--target 'a|b'`` for its own multi-device tests, set attributes that
today's JUnit XML has not, and fork a queue manager that outlives a killed pytest, together with
the ports and locks it inherited. Our device session uses none of that.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

EMBEDDED = "pytest_embedded"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def leave_out_embedded(item: pytest.Function) -> None:
    """Drop pytest-embedded's fixtures from a test that does not ask for any of them.

    Args:
        item: A collected test. One that asks for, say, pytest-embedded's ``dut`` is left as it is.
    """
    info = item._fixtureinfo  # noqa: SLF001 - pytest has no other way
    definitions = info.name2fixturedefs
    theirs = {
        name
        for name, found in definitions.items()
        if found[-1].func.__module__.partition(".")[0] == EMBEDDED
    }
    marks = {name for mark in item.iter_markers("usefixtures") for name in mark.args}
    open_names = [
        name for name in info.initialnames if name not in theirs or name in {*info.argnames, *marks}
    ]
    needed: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name not in needed:
            needed.add(name)
            open_names += (arg for found in definitions.get(name, ()) for arg in found.argnames)
    if not needed & theirs:
        item.fixturenames = [name for name in item.fixturenames if name in needed]


@contextlib.contextmanager
def mortal_manager() -> Iterator[None]:
    """Let the queue manager that pytest-embedded starts meanwhile be killed when pytest is.

    Tests beside ours have it started. Linux only: elsewhere it is no fork, and inherits nothing.
    """
    from unittest import mock

    from pytest_embedded.log import MessageQueueManager

    start = functools.partialmethod(MessageQueueManager.start, initializer=_die_with_parent)
    with mock.patch.object(MessageQueueManager, "start", start):
        yield


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
