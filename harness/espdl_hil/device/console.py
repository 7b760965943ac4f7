"""The device's console text: last lines, log file, and waiting for a pattern."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

RING_BYTES: Final = 64 * 1024
MAX_LOG_BYTES: Final = 256 << 20  # a device that floods must not fill the disk
LOG_IS_FULL: Final = b"\n(the log is full; nothing more is kept)\n"
TAIL_LINES: Final = 12
TAIL_CHARACTERS: Final = 1500
UNREADABLE: Final = "\ufffd"

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
Sink = Callable[[bytes], object]


class Console:
    """Collects console bytes from any thread; does what pytest-embedded needs two processes for.

    Args:
        log_path: File that gets all text as it comes, controls in caret notation (``^[`` for
            escape) and without carriage returns: a log viewer obeys nothing; None for none.
        sink: Also called with every piece, for instance a pytest-embedded ``msg_queue.put``.
    """

    def __init__(self, log_path: Path | None = None, sink: Sink | None = None) -> None:
        self.log_path = log_path
        self._log = LogFile(log_path) if log_path is not None else None
        self._sink = sink
        self._changed = threading.Condition()
        self._ring = bytearray()
        self._total = 0  # bytes ever received
        self._expect_from = 0  # where the next expect starts, counted like _total
        self._logged = 0  # bytes

    @property
    def log_failure(self) -> str:
        """Why the log ends early; empty when it does not."""
        return self._log.failure if self._log is not None else ""

    def log(self, text: str) -> None:
        """Write to the log what is not device output: esptool's messages."""
        with self._changed:
            self._record(text.encode())

    def feed(self, data: bytes) -> None:
        """Take console bytes that the device sent."""
        if not data:
            return
        with self._changed:
            self._record(data)
            self._ring += data
            self._total += len(data)
            del self._ring[:-RING_BYTES]
            self._changed.notify_all()

    def mark(self) -> int:
        """Position after the last byte; give it to :meth:`since`."""
        with self._changed:
            return self._total

    def since(self, mark: int) -> str:
        """Text that came after *mark*, as far as it is kept, without colour codes."""
        with self._changed:
            start = max(0, len(self._ring) - (self._total - mark))
            return clean(bytes(self._ring[start:]))

    def tail(self, mark: int = 0) -> str:
        """The last lines since *mark* that are text, for an error message."""
        return "\n".join(readable_lines(self.since(mark))[-TAIL_LINES:])[-TAIL_CHARACTERS:]

    def expect(self, pattern: str | re.Pattern[str], timeout_s: float) -> re.Match[str] | None:
        """Wait for *pattern* in text that no earlier ``expect`` has passed, less colour codes.

        Returns:
            The match; None when the time is over.
        """
        found: re.Match[str] | None = None

        def look() -> bool:
            nonlocal found
            start = max(0, len(self._ring) - (self._total - self._expect_from))
            found = re.search(pattern, clean(bytes(self._ring[start:]), keep="\r\n\t"))
            return found is not None

        with self._changed:
            if self._changed.wait_for(look, timeout_s) and found is not None:
                remaining = found.string[found.end() :].encode()
                self._expect_from = self._total - len(remaining)
            return found

    def close(self) -> None:
        """Close the log file."""
        with self._changed:
            if self._log is not None:
                self._log.close()

    def _record(self, data: bytes) -> None:
        if self._log is not None and not self._log.closed and self._logged < MAX_LOG_BYTES:
            self._log.write(_harmless(data[: MAX_LOG_BYTES - self._logged]))
            self._logged += len(data)
            if self._logged >= MAX_LOG_BYTES:
                self._log.write(LOG_IS_FULL)
        if self._sink is not None:
            self._sink(data)


class LogFile(io.FileIO):
    """A log, appended to without a buffer: what cannot be written is lost and said.

    Args:
        path: Its folder is made when it is absent.

    Attributes:
        failure: Why the log ends early; empty when it does not.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.failure = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, "ab")
        except OSError as error:
            raise ConfigError(
                f"the log {path} cannot be written: {error.strerror or error}",
                hint="name another folder with --hil-report DIR",
            ) from None

    def write(self, data: Buffer, /) -> int:
        """Append; after the first failure nothing more."""
        if not self.failure:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = f"the log {self.name} cannot be written: {error.strerror or error}"
        return 0


def _harmless(data: bytes) -> bytes:
    def caret(found: re.Match[bytes]) -> bytes:  # as `cat -v` does
        return b"^" + bytes(((found[0][-1] ^ 0x40) & 0x7F,))

    return _CONTROLS.sub(caret, data.replace(b"\r", b""))


def readable_lines(text: str) -> list[str]:
    """The lines of *text* that are not empty and hold no damaged packets."""
    lines = (line.rstrip() for line in text.splitlines())
    return [line for line in lines if line and UNREADABLE not in line]


def clean(data: bytes, keep: str = "\n\t") -> str:
    """The one place where device bytes become text: no escape sequence, no control character."""
    text = _ANSI.sub("", data.decode("utf-8", errors="replace"))
    return "".join(c for c in text if c.isprintable() or c in keep)
