"""Tells the host each second that the chip is there, while its thread is at work on a request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

PULSE_S: Final = 1.0  # as protocol.md says


class Pulse:
    """Calls a function each second during some work, from a thread of its own.

    Args:
        beat: Sends the pulse.
        period_s: From one pulse to the next.
    """

    def __init__(self, beat: Callable[[], object], period_s: float = PULSE_S) -> None:
        self._beat = beat
        self._period_s = period_s
        self._turn = threading.Lock()  # of the thread that beats, or of that which works
        self._is_working = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulated pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def during(self, work: Callable[[], bool]) -> bool:
        """Do *work*, which may take long and leaves alone what *beat* uses."""
        with self._turn:
            self._is_working = True
        try:
            return work()
        finally:
            with self._turn:
                self._is_working = False

    def _run(self) -> None:
        while not self._over.wait(self._period_s):
            with self._turn:
                if self._is_working:
                    self._beat()
