"""Reading crash reports and boot failures out of console text. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

TASK_WATCHDOG: Final = "task watchdog got triggered"
BOOT_LOOP_RESETS: Final = 3  # this many resets while one boot is awaited are a loop


@dataclass(frozen=True)
class Failure:
    """What the console says went wrong.

    Attributes:
        kind: ``panic``, ``abort``, ``assert``, ``brownout``, ``watchdog``, ``stack``, ``heap``
            (the app crashed), or ``download``, ``flash``, ``image``, ``loop`` (it never started).
        text: One line in plain words.
        hint: What to do next.
        at: Where in the text it was found, characters.
    """

    kind: str
    text: str
    hint: str | None = None
    at: int = 0

    @property
    def is_final(self) -> bool:
        """Whether waiting longer for the app to start is in vain."""
        return self.kind in ("download", "flash", "image", "loop")

    @property
    def ends_app(self) -> bool:
        """Whether the app is gone; the task watchdog may only warn."""
        return not self.is_final and self.text != TASK_WATCHDOG


_Rule = tuple[str, str, str, str | None]  # kind, pattern, text, hint

_CRASHES: tuple[_Rule, ...] = (
    (
        "brownout",
        r"[Bb]rownout detector was triggered",
        "supply voltage dropped (brownout)",
        "use another USB cable or port, or a powered hub",
    ),
    (
        "stack",
        r"stack overflow in task (\S+)",
        "stack overflow in task {0}",
        "raise the task's stack size in the firmware",
    ),
    ("stack", r"Stack smashing protect failure", "stack smashing detected", None),
    (
        "heap",
        r"(CORRUPT HEAP: [^\r\n]*)",
        "{0}",
        "something wrote outside its memory; run each model alone to see which one does",
    ),
    ("assert", r"assert failed: ([^\r\n]+)", "assertion failed: {0}", None),
    (
        "abort",
        r"abort\(\) was called at PC (0x[0-9a-fA-F]+)",
        "abort() was called at PC {0}",
        "resolve the address with addr2line and the app's ELF file",
    ),
    (
        "watchdog",
        r"Guru Meditation Error: Core +(\d) panic'ed \((Interrupt wdt[^)]*)\)",
        "watchdog on core {0}: {1}",
        "a model step or a critical section took too long",
    ),
    (
        "watchdog",
        r"Task watchdog got triggered",
        TASK_WATCHDOG,
        "a model step took longer than CONFIG_ESP_TASK_WDT_TIMEOUT_S",
    ),
    (
        "panic",
        r"Guru Meditation Error: Core +(\d) panic'ed \(([^)]*)\)",
        "core {0} panicked: {1}",
        "resolve the backtrace with addr2line and the app's ELF file",
    ),
    ("panic", r"(Guru Meditation Error[^\r\n]*)", "{0}", None),
    ("watchdog", r"rst:0x[0-9a-fA-F]+ \((\w*WDT\w*)\)", "reset by watchdog {0}", None),
)

_BOOT_FAILURES: tuple[_Rule, ...] = (
    (
        "download",
        r"waiting for download",
        "the chip is in its ROM loader, waiting for download",
        "release the BOOT button (IO0), then reset the board",
    ),
    (
        "flash",
        r"invalid header: (0x[0-9a-fA-F]+)",
        "no bootloader in flash (header {0})",
        "flash again; with a board of another flash mode check the sdkconfig",
    ),
    (
        "flash",
        r"(flash read err[^\r\n]*|SPI flash[^\r\n]*fail[^\r\n]*)",
        "the flash cannot be read ({0})",
        "check the flash mode and frequency in the sdkconfig",
    ),
    (
        "image",
        r"(No bootable app partitions[^\r\n]*|No bootable app[^\r\n]*)",
        "no bootable app in flash",
        "flash again; the app or the partition table is damaged",
    ),
    (
        "image",
        r"(invalid magic byte|Checksum fail|Image hash failed"
        r"|invalid segment length|image length|ets_loader\.c \d+)[^\r\n]*",
        "the app image is damaged ({0})",
        "flash again",
    ),
    (
        "image",
        r"(mismatch chip ID[^\r\n]*|chip revision check failed[^\r\n]*)",
        "the image was built for another chip or revision ({0})",
        "build for this chip; an ESP32-P4 below 3.0 needs CONFIG_ESP32P4_SELECTS_REV_LESS_V3=y",
    ),
    (
        "image",
        r"(partition table[^\r\n]*(?:invalid|fail)[^\r\n]*|Failed to verify partition table)",
        "the partition table is damaged ({0})",
        "flash again",
    ),
)

_RESET = re.compile(r"^(?:.*?)rst:0x([0-9a-fA-F]+)", re.MULTILINE)


def decode_crash(console: str) -> Failure | None:
    """Find the first crash in console text.

    Args:
        console: Text as the device printed it, colour codes removed.

    Returns:
        The crash with the lowest position in the text; None when there is none.

    >>> decode_crash("abort() was called at PC 0x42001234 on core 0").text
    'abort() was called at PC 0x42001234'
    """
    return _first(_CRASHES, console)


def decode_boot_failure(console: str) -> Failure | None:
    """Say why the app did not start, from what came since the reset; None when it does not show."""
    crash = decode_crash(console)
    resets = len(_RESET.findall(console))
    if resets >= BOOT_LOOP_RESETS:
        failure = crash or _first(_BOOT_FAILURES, console)
        why = f": {failure.text}" if failure else ""
        hint = failure.hint if failure else "flash again, and check the supply voltage"
        return Failure("loop", f"the chip restarts again and again ({resets} resets){why}", hint)
    return crash or _first(_BOOT_FAILURES, console)


def _first(patterns: tuple[_Rule, ...], console: str) -> Failure | None:
    """The failure that shows first; of those at one place, the first in the table."""
    found = [
        Failure(kind, text.format(*match.groups()).strip(), hint, match.start())
        for kind, pattern, text, hint in patterns
        if (match := re.search(pattern, console)) is not None
    ]
    return min(found, key=lambda failure: failure.at, default=None)
