"""What is being done, for whoever waits: one line on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_S = 1.0  # what is done before that is not worth a line
TERMINAL_S, LOG_S = 0.25, 30.0  # from one line to the next
_CLEAR = "\r\x1b[K"


class ProgressCallback(Protocol):
    """Says how far the work is."""

    def __call__(self, done: int, total: int, label: str = "", /) -> None:
        """Take what is done, of how much, and what was done last."""


class ProgressLine:
    """Shows work that takes its time on the standard error stream.

    A terminal has one line, which is gone when the work is done; anything else gets a line of its
    own twice a minute.

    Args:
        around: Made before and left after each write, for a capture to make way.
        column: Where the cursor of the terminal stands. Beyond 0 the line is someone else's: then
            the next one is used, and the cursor comes back.
        live: Whether a terminal is written to.
        clock: Seconds.
    """

    def __init__(
        self,
        around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        column: Callable[[], int] = lambda: 0,
        live: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._around = around
        self._column = column
        self._live = live
        self._clock = clock

    @contextlib.contextmanager
    def work(
        self, what: str, noun: str = "", *, at_once: bool = False
    ) -> Iterator[ProgressCallback]:
        """Show a piece of work while it is done.

        Args:
            what: It, as in ``streaming esp32s3-tcn-int8-chunk3``.
            noun: What is counted, in the plural.
            at_once: Show it from the start; otherwise once it takes its time.

        Yields:
            To be called as the work goes on.
        """
        start_s = self._clock()
        with self._around():
            is_terminal = sys.stderr.isatty()
            column = self._column() if is_terminal and self._live else 0
        due_s, is_shown = start_s + (FIRST_S if is_terminal else LOG_S), False

        def step(done: int, total: int, label: str = "", /) -> None:
            nonlocal due_s
            now_s = self._clock()
            if now_s >= due_s:
                due_s = now_s + (TERMINAL_S if is_terminal else LOG_S)
                show(f"{what}: {_progress(done, total, noun, now_s - start_s)} {label}".rstrip())

        def show(text: str) -> None:
            nonlocal is_shown
            if is_terminal and not self._live:
                return
            with self._around():
                if not is_terminal:
                    print(text, file=sys.stderr, flush=True)
                    return
                below = "\n" if column and not is_shown else ""
                fits = text[: shutil.get_terminal_size().columns - 1]
                print(f"{below}{_CLEAR}{fits}", end="", file=sys.stderr, flush=True)
            is_shown = True

        if at_once and is_terminal:
            show(what)
        try:
            yield step
        finally:
            if is_shown:
                back = f"\x1b[A\x1b[{column + 1}G" if column else ""
                with self._around():
                    print(f"{_CLEAR}{back}", end="", file=sys.stderr, flush=True)


def _progress(done: int, total: int, noun: str, elapsed_s: float) -> str:
    """How much is done, how fast, and how long the rest takes.

    >>> _progress(30, 90, "chunks", 12.0)
    '30 of 90 chunks, 2.5/s, 24 s left'
    """
    text = f"{done} of {total} {noun}"
    if not done:
        return text
    return f"{text}, {done / elapsed_s:.3g}/s, {(total - done) * elapsed_s / done:.0f} s left"
