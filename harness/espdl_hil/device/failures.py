"""From what a session saw to the error that says it: console text, damaged frames, silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from espdl_hil.device.console import TAIL_LINES, readable_lines
from espdl_hil.device.errors import (
    BootError,
    CrashError,
    HandshakeError,
    RequestError,
    TransportError,
)
from espdl_hil.device.panic_decoder import Failure, decode_boot_failure, decode_crash
from espdl_hil.wire.framing import DamageReason
from espdl_hil.wire.messages import ErrorCode, ErrorReply, Message

if TYPE_CHECKING:
    from espdl_hil.device.console import Console
    from espdl_hil.errors import DeviceError
    from espdl_hil.wire.framing import Decoder

REPORT_LINE_BYTES: Final = 512  # no line that tells of a crash is longer


class Failures:
    """Builds the errors of one session, to which the console's text since now belongs."""

    def __init__(self, port: str, console: Console, decoder: Decoder) -> None:
        self._port = port
        self._console = console
        self._decoder = decoder
        self._mark = console.mark()

    @property
    def tail(self) -> str:
        """The session's last console lines."""
        return self._console.tail(self._mark)

    def is_suspicious(self, seen: int) -> bool:
        """Whether text after the console's mark *seen* belongs to a crash report; a quick look."""
        recent = self._console.since(max(self._mark, seen - REPORT_LINE_BYTES))
        return decode_crash(recent) is not None

    def crash(self) -> Failure | None:
        """The first crash report on the console since the session began."""
        return decode_crash(self._whole_lines())

    def crashed(self, failure: Failure) -> CrashError:
        """The device crashed; shows the report, though the next boot may follow it already."""
        report = readable_lines(self._whole_lines()[failure.at :])[:TAIL_LINES]
        return CrashError(
            f"the device crashed: {failure.text}",
            kind=failure.kind,
            port=self._port,
            console_tail="\n".join(report),
            hint=failure.hint,
        )

    def restarted(self) -> DeviceError:
        """The device has forgotten the session; a crash report explains it, if there is one."""
        return self._crashed_or(
            "the device restarted, or another program opened a session with it",
            "check the supply voltage, and that no serial monitor has the port open",
        )

    def timed_out(self, request: Message, deadline_s: float, repeats: int) -> DeviceError:
        """*request* was never answered."""
        return self._crashed_or(
            f"no reply to {type(request).__name__} within {deadline_s:g} s ({repeats} repeats)",
            "reset the board; if it happens again, check cable and baud rate",
        )

    def quiet(self, request: Message, quiet_s: float, repeats: int) -> DeviceError:
        """Not a byte came while *request* was to be answered, though the device would pulse."""
        return self._crashed_or(
            f"the port is silent: not a byte came within {quiet_s:g} s of {type(request).__name__} "
            f"({repeats} repeats)",
            "check cable and supply, and that the chip has not hung: press EN (RST)",
        )

    def _crashed_or(self, message: str, hint: str) -> DeviceError:
        failure = self.crash()
        return self.broken(message, hint) if failure is None else self.crashed(failure)

    def broken(self, message: str, hint: str | None = None) -> TransportError:
        """Packets do not get through; counts those that were damaged."""
        counts = ", ".join(
            f"{self._decoder.damaged[reason]} frames damaged ({reason.value})"
            for reason in DamageReason
            if self._decoder.damaged[reason]
        )
        return TransportError(
            f"{message}; {counts}" if counts else message,
            port=self._port,
            console_tail=self.tail,
            hint=hint,
        )

    def refused(self, request: Message, reply: ErrorReply) -> DeviceError:
        """The firmware answered with an error."""
        if reply.code == ErrorCode.VERSION:
            return self._other_version(reply.text)
        try:
            code = ErrorCode(reply.code).name
        except ValueError:
            code = f"error {reply.code}"
        words = f" ({reply.text})" if reply.text else ""
        return RequestError(
            f"{type(request).__name__} was refused: {code}{words}",
            code=code,
            done=reply.done,
            port=self._port,
            console_tail=self.tail,
        )

    def incompatible(self, message: str) -> HandshakeError:
        """The device is greeted and cannot be worked with."""
        return HandshakeError(
            message,
            port=self._port,
            console_tail=self.tail,
            hint="build and flash the firmware that belongs to this harness",
        )

    def boot_failure(self, waited_s: float | None) -> DeviceError | None:
        """Why HELLO will not be answered.

        Args:
            waited_s: The time that is now over; None while there is some left.

        Returns:
            The error; None when waiting longer may still help.
        """
        failure = decode_boot_failure(self._whole_lines())
        if failure is not None and (waited_s is not None or failure.is_final):
            return BootError(
                f"the app did not start: {failure.text}",
                port=self._port,
                console_tail=self.tail,
                hint=failure.hint,
            )
        if waited_s is None:
            return None
        if self._decoder.damaged[DamageReason.VERSION]:
            return self._other_version("")
        damaged = sum(self._decoder.damaged.values())
        came = f"{damaged} damaged packets" if damaged else "text" if self.tail else "nothing"
        return BootError(
            f"no answer to HELLO within {waited_s:g} s; {came} came",
            port=self._port,
            console_tail=self.tail,
            hint="check that the firmware of this harness is flashed, that it talks on this port, "
            "and that the baud rate fits; then reset the board",
        )

    def _other_version(self, words: str) -> HandshakeError:
        return self.incompatible(
            "the device speaks another version of the protocol" + (f": {words}" if words else "")
        )

    def _whole_lines(self) -> str:
        text = self._console.since(self._mark)
        return text[: text.rfind("\n") + 1]  # a line that is not over may still change
