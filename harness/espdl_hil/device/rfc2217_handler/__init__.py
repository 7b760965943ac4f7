"""A pyserial URL handler: an RFC 2217 client that waits on events instead of polling.

pyserial's own ``rfc2217://`` client sleeps 50 ms for every acknowledgement,
which makes esptool take 6 to 10 s to connect and load its stub. This one
answers to a scheme of its own, so that other users of pyserial in the process
keep theirs.
"""

from __future__ import annotations

import serial

SCHEME = "rfc2217event"
STOCK_SCHEME = "rfc2217"


def register() -> None:
    """Let ``serial.serial_for_url`` find this handler; repeated calls do nothing."""
    if __name__ not in serial.protocol_handler_packages:
        serial.protocol_handler_packages.append(__name__)


def event_url(port: str) -> str:
    """Map a user's ``rfc2217://`` URL to this handler; other ports pass unchanged.

    >>> event_url("rfc2217://board:4000")
    'rfc2217event://board:4000'
    >>> event_url("/dev/ttyUSB0")
    '/dev/ttyUSB0'
    """
    scheme, separator, rest = port.partition("://")
    return f"{SCHEME}://{rest}" if separator and scheme.lower() == STOCK_SCHEME else port
