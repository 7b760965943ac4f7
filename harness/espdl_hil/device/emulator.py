"""A device behind a TCP socket: an emulator of ours, or one that somebody else runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import serial

from espdl_hil.device.errors import BootError, TransportError
from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from espdl_hil.device.machine import Machine

START_S: Final = 30.0  # until an emulator listens, on a busy machine
REOPEN_S: Final = 5.0
REOPEN_POLL_S: Final = 0.1  # no event tells of a listening socket
FOREIGN: Final = "unknown, behind a socket"


class Emulator:
    """Stands in for a board: same verbs, no reset lines.

    Args:
        port: pyserial URL.
        machine: The emulator behind it, which is flashed by starting it anew; None if it is not
            ours. Then the device must run the app already, and what it holds stays as it is.

    Attributes:
        label: Name and version of the emulator.

    Raises:
        ConfigError: Nothing listens there.
        BootError: Our emulator ended.
    """

    flashed_bytes: Final = 0  # its flash is a file

    def __init__(self, port: str, machine: Machine | None = None) -> None:
        self.name = port
        self.label = FOREIGN if machine is None else machine.label
        self.flashed: list[int] = []
        self._machine = machine
        try:
            self.port: Any = serial.serial_for_url(port, do_not_open=True)
            self._open(START_S if machine else 0.0)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"port {port} cannot be opened ({error})",
                hint="start the emulator with its UART on this socket first",
            ) from None

    def check(self, models: bytes) -> None:
        """Refuse a package that cannot be flashed.

        Raises:
            ConfigError: It does not fit, or there is no emulator of ours behind the socket.
        """
        if self._machine is not None:
            self._machine.firmware.require_fit(models)
            return
        raise ConfigError(
            f"port {self.name}: {len(models)} bytes of models cannot be flashed through a socket",
            hint="give the emulator its flash image at its start (espdl-hil image writes one), or "
            "upload models instead",
        )

    def flash(self, models: bytes | None = None, *, everything: bool = False) -> None:
        """Start the emulator anew, with *models* in its flash; raises as :meth:`reset`."""
        machine = self._need_machine()
        del everything  # nothing else of the image ever changes
        self.close()
        if models is None:
            machine.start()
        else:
            machine.flash(models)
            self.flashed = [len(models)]
        self._open(START_S)

    def reset(self) -> None:
        """Start the chip anew.

        Raises:
            TransportError: A socket has no reset line.
            BootError: The emulator ended.
        """
        machine = self._need_machine()
        machine.reset()
        self.close()  # with all that came before
        self._open(START_S)

    def reopen_if_gone(self, *, is_powered_anew: bool = False) -> None:
        """Connect anew; a lost TCP connection cannot be told from a quiet one.

        Raises:
            TransportError: Nothing listens any more.
        """
        del is_powered_anew  # it makes no difference
        self.close()
        if self._machine is not None and self._machine.ended:
            self._machine.start()
        try:
            self._open(REOPEN_S)
        except OSError as error:
            raise TransportError(
                f"the port did not come back within {REOPEN_S:g} s ({error})",
                port=self.name,
                hint="restart the emulator",
            ) from None

    def close(self) -> None:
        """Close the port; closing twice does nothing."""
        connection = getattr(self.port, "_socket", None)  # pyserial forgets one that was reset
        self.port.close()
        if connection is not None:
            connection.close()

    def _open(self, patience_s: float) -> None:
        """Connect as soon as something listens."""
        deadline_s = time.monotonic() + patience_s
        while not self.port.is_open:
            try:
                self.port.open()
            except OSError:
                if self._machine is not None and (words := self._machine.ended):
                    raise BootError(
                        words,
                        port=self.name,
                        hint="run its command line by hand, and look for missing libraries",
                    ) from None
                if time.monotonic() >= deadline_s:
                    raise
                time.sleep(REOPEN_POLL_S)

    def _need_machine(self) -> Machine:
        if self._machine is None:
            raise TransportError(
                "a device behind a socket cannot be reset",
                port=self.name,
                hint="restart the emulator",
            )
        return self._machine
