"""What a UART's line does to bytes: it takes time, and needs both ends at one rate."""

from __future__ import annotations

import math
import time

BITS_PER_BYTE = 10  # start bit, eight data bits, stop bit
CONSOLE_BAUD = 115200  # of the firmware's console, so of each boot of the application
MAX_BAUD = 5_000_000  # of the chips' UARTs
FIFO_BYTES = 128  # of a UART: so much is still on its way when a write returns
FIFO_FULL_BYTES = 120  # ESP-IDF's driver takes them when so many are there, or no more come

_WRONG = bytes(value * 167 + 89 & 0xFF for value in range(256))


def garbled(data: bytes) -> bytes:
    """Return what is read of bytes that were sent at another rate."""
    return data.translate(_WRONG)


class ChipClock:
    """The time as the chip has it: what others take of this host's processors is not counted.

    Runs with the processor time of the thread that uses it, from when a wait ended or was to end;
    it is never ahead of the host's.
    """

    def __init__(self) -> None:
        self.set(time.monotonic())

    def set(self, now_s: float) -> None:
        """A wait is over, or was to be."""
        self._set_s = now_s
        self._worked_s = time.thread_time()

    def now_s(self) -> float:
        """Seconds, as ``time.monotonic`` counts them."""
        return self._set_s + time.thread_time() - self._worked_s


class Lane:
    """One direction of a line: when the bytes that were put on it have arrived."""

    def __init__(self) -> None:
        self._free_at_s = 0.0

    def put(self, size: int, baud: int, since_s: float) -> None:
        """Send *size* bytes as soon as the lane is free, but not before *since_s*."""
        self._free_at_s = max(self._free_at_s, since_s) + size * BITS_PER_BYTE / baud

    def left_s(self) -> float:
        """Seconds until all have arrived."""
        return max(0.0, self._free_at_s - time.monotonic())

    def left_bytes(self, baud: int) -> int:
        """How many have not arrived."""
        return math.ceil(self.left_s() * baud / BITS_PER_BYTE)
