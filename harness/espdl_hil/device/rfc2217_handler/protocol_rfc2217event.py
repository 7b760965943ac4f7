"""``rfc2217event://host:port``: pyserial's port interface on a :class:`Link`.

URL options are those of pyserial's ``rfc2217://``: ``?ign_set_control`` does
not wait for answers to control requests, ``?timeout=SECONDS`` is how long the
server may take for an answer; ``logging`` and ``poll_modem`` are accepted
and do nothing.
"""

from __future__ import annotations

import struct
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from serial import PortNotOpenError, SerialBase, SerialException
from serial.rfc2217 import RFC2217_PARITY_MAP, RFC2217_STOPBIT_MAP

from espdl_hil.device.rfc2217_handler import SCHEME, STOCK_SCHEME
from espdl_hil.device.rfc2217_handler.link import Link
from espdl_hil.formats import telnet

DEFAULT_ANSWER_TIMEOUT_S: Final = 3.0

_WANTED = f"{STOCK_SCHEME}://HOST:PORT[?ign_set_control][&timeout=SECONDS]"


class Serial(SerialBase):
    """A remote serial port. No file descriptor: ``fileno`` raises ``io.UnsupportedOperation``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.is_open = False
        self._link: Link | None = None
        self._applied: dict[str, int] = {}  # settings that the server has confirmed
        super().__init__(*args, **kwargs)  # opens the port if it is given one

    # -- life ----------------------------------------------------------------

    def open(self) -> None:
        """Connect, negotiate and apply every setting.

        Raises:
            SerialException: The URL is malformed, the server unreachable or not RFC 2217.
        """
        if self._port is None:
            raise SerialException("Port must be configured before it can be used.")
        if self.is_open:
            raise SerialException("Port is already open.")
        host, port, answer_timeout_s, ignore_controls = _parse_url(self._port)
        # esptool picks its reset sequence by this name; the sequence for rfc2217 needs no ioctl.
        self.name = self._port.replace(SCHEME, STOCK_SCHEME, 1)
        self._link = Link(host, port, answer_timeout_s, ignore_controls=ignore_controls)
        self.is_open = True
        try:
            self._reconfigure_port()
            self._update_dtr_state()
            self._update_rts_state()
            self.reset_input_buffer()
            self.reset_output_buffer()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect; closing twice does nothing."""
        self.is_open = False
        link, self._link = self._link, None
        self._applied.clear()
        if link is not None:
            link.close()

    # -- bytes ---------------------------------------------------------------

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""
        return self._connected().waiting()

    def read(self, size: int = 1) -> bytes:
        """Read *size* bytes, fewer when ``timeout`` passes or the read is cancelled."""
        return self._connected().read(size, self._timeout)

    def cancel_read(self) -> None:
        """Make a read that is waiting in another thread return."""
        self._connected().cancel_read()

    def write(self, data: bytes) -> int:
        """Send *data*; ``write_timeout`` bounds how long the server may refuse to take it."""
        payload = bytes(data)
        self._connected().write(payload, self._write_timeout)
        return len(payload)

    def flush(self) -> None:
        """Nothing is buffered on this side."""
        self._connected()

    def reset_input_buffer(self) -> None:
        """Drop what was received, here and in the server."""
        self._connected().clear_received()

    def reset_output_buffer(self) -> None:
        """Drop what the server has not sent yet."""
        self._connected().request_optional(telnet.PURGE_DATA, telnet.PURGE_TO_SEND)

    # -- settings and lines --------------------------------------------------

    def _reconfigure_port(self) -> None:
        """Send the settings that changed; pyserial calls this for timeouts too."""
        self._connected()
        if not 0 < self._baudrate < 2**32:
            raise ValueError(f"invalid baudrate: {self._baudrate!r}")
        if self._xonxoff and self._rtscts:
            raise ValueError("xonxoff and rtscts together are not supported")
        self._apply("baudrate", telnet.SET_BAUDRATE, self._baudrate, "!I")
        self._apply("data size", telnet.SET_DATASIZE, self._bytesize, "!B")
        self._apply("parity", telnet.SET_PARITY, RFC2217_PARITY_MAP[self._parity], "!B")
        self._apply("stop bits", telnet.SET_STOPSIZE, RFC2217_STOPBIT_MAP[self._stopbits], "!B")
        flow = telnet.CONTROL_NO_FLOW
        if self._rtscts:
            flow = telnet.CONTROL_RTSCTS
        elif self._xonxoff:
            flow = telnet.CONTROL_XONXOFF
        if self._applied.get("flow control") != flow:
            self._control(flow)
            self._applied["flow control"] = flow

    def _apply(self, setting: str, command: int, value: int, layout: str) -> None:
        if self._applied.get(setting) == value:
            return
        wanted = struct.pack(layout, value)
        answer = self._connected().request(command, wanted)
        if answer[: len(wanted)] != wanted:  # some servers append zeros
            raise SerialException(
                f"{self.name}: the server refused {setting} {value}, it keeps {answer.hex()}"
            )
        self._applied[setting] = value

    def _control(self, value: int) -> None:
        self._connected().request_optional(telnet.SET_CONTROL, value)

    def _update_dtr_state(self) -> None:
        self._control(telnet.CONTROL_DTR_ON if self._dtr_state else telnet.CONTROL_DTR_OFF)

    def _update_rts_state(self) -> None:
        self._control(telnet.CONTROL_RTS_ON if self._rts_state else telnet.CONTROL_RTS_OFF)

    def _update_break_state(self) -> None:
        on, off = telnet.CONTROL_BREAK_ON, telnet.CONTROL_BREAK_OFF
        self._control(on if self._break_state else off)

    @property
    def cts(self) -> bool:
        """Clear to send."""
        return bool(self._connected().modem_state() & telnet.MODEM_CTS)

    @property
    def dsr(self) -> bool:
        """Data set ready."""
        return bool(self._connected().modem_state() & telnet.MODEM_DSR)

    @property
    def ri(self) -> bool:
        """Ring indicator."""
        return bool(self._connected().modem_state() & telnet.MODEM_RI)

    @property
    def cd(self) -> bool:
        """Carrier detect."""
        return bool(self._connected().modem_state() & telnet.MODEM_CD)

    def _connected(self) -> Link:
        link = self._link
        if link is None:
            raise PortNotOpenError
        return link


def _parse_url(url: str) -> tuple[str, int, float, bool]:
    """Host, port, seconds that an answer may take, and whether those to controls are ignored."""
    parts = urlsplit(url)
    values = parse_qs(parts.query, keep_blank_values=True)
    unknown = set(values) - {"timeout", "ign_set_control", "logging", "poll_modem"}
    if unknown:
        raise SerialException(f"{url}: unknown option {sorted(unknown)[0]!r}; expected {_WANTED}")
    try:
        host, port = parts.hostname, parts.port
        answer_timeout_s = float(values.get("timeout", [DEFAULT_ANSWER_TIMEOUT_S])[0])
    except ValueError as error:
        raise SerialException(f"{url}: {error}; expected {_WANTED}") from error
    if not host or port is None:
        raise SerialException(f"{url}: host or port is missing; expected {_WANTED}")
    return host, port, answer_timeout_s, "ign_set_control" in values
