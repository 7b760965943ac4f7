"""A device that runs already, behind a port without reset lines: an emulator's TCP socket."""

from __future__ import annotations

import time
from typing import Any, Final

import serial

from espdl_hil.device.errors import TransportError
from espdl_hil.errors import ConfigError

REOPEN_S: Final = 5.0
REOPEN_POLL_S: Final = 0.1


class Emulator:
    """Stands in for a board that cannot be flashed or reset from here.

    The device must run the app already; models that it does not hold are uploaded.

    Args:
        port: pyserial URL.

    Raises:
        ConfigError: Nothing listens there.
    """

    is_usb_jtag: Final = False

    def __init__(self, port: str) -> None:
        self.name = port
        self.flashed: list[int] = []
        try:
            self.port: Any = serial.serial_for_url(port)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"port {port} cannot be opened ({error})",
                hint="start the emulator with its UART on this socket first",
            ) from None

    def check(self, models: bytes) -> None:
        """Refuse any package.

        Raises:
            ConfigError: Always: there is no ROM loader behind a socket.
        """
        raise ConfigError(
            f"port {self.name}: {len(models)} bytes of models cannot be flashed through a socket",
            hint="give the emulator its flash image at its start, or upload models instead",
        )

    def flash(self, models: bytes | None = None, *, everything: bool = False) -> None:
        """Refuse; raises as :meth:`reset`."""
        del models, everything
        self.reset()

    def reset(self) -> None:
        """Refuse.

        Raises:
            TransportError: Always: a socket has no reset line.
        """
        raise TransportError(
            "a device behind a socket cannot be reset",
            port=self.name,
            hint="restart the emulator",
        )

    def reopen_if_gone(self) -> None:
        """Connect anew; a lost TCP connection cannot be told from a quiet one.

        Raises:
            TransportError: Nothing listens any more.
        """
        self.close()
        deadline = time.monotonic() + REOPEN_S
        while not self.port.is_open:
            try:
                self.port.open()
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise TransportError(
                        f"the port did not come back within {REOPEN_S:g} s ({error})",
                        port=self.name,
                        hint="restart the emulator",
                    ) from None
                time.sleep(REOPEN_POLL_S)

    def close(self) -> None:
        """Close the port; closing twice does nothing."""
        connection = getattr(self.port, "_socket", None)  # pyserial forgets one that was reset
        self.port.close()
        if connection is not None:
            connection.close()
