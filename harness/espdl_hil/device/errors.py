"""What can go wrong with a device, by what helps. Every error carries port and console tail."""

from __future__ import annotations

from espdl_hil.errors import DeviceError


class BootError(DeviceError):
    """The device did not reach its app; an infrastructure fault."""


class CrashError(DeviceError):
    """The device crashed: panic, abort, brownout or watchdog.

    Args:
        message: What the console says, decoded.
        kind: ``panic``, ``abort``, ``assert``, ``brownout``, ``watchdog``, ``stack`` or ``heap``.
        port: The port as the user names it.
        console_tail: The last console lines.
        hint: What to do next.
    """

    def __init__(
        self, message: str, *, kind: str, port: str, console_tail: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, port=port, console_tail=console_tail, hint=hint)
        self.kind = kind


class TransportError(DeviceError):
    """Packets were lost or damaged beyond what repeating mends, or the port went away."""


class HandshakeError(DeviceError):
    """The device speaks, but it is not what was asked for: protocol, target or app differ."""


class StaleArtifactError(DeviceError):
    """The device runs other bytes than were meant: a hash or the boot nonce differs."""


class RequestError(DeviceError):
    """The firmware refused a request.

    Args:
        message: The request and the firmware's words.
        code: Name of the error code, see ``wire/protocol.md``.
        done: Steps of the request that were executed before.
        port: The port as the user names it.
        console_tail: The last console lines.
        hint: What to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        port: str,
        done: int = 0,
        console_tail: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, port=port, console_tail=console_tail, hint=hint)
        self.code = code
        self.done = done
        self.reason = message


def is_retryable(error: BaseException) -> bool:
    """Whether *error* is an infrastructure fault, the only kind that may be retried."""
    return isinstance(error, BootError | CrashError | TransportError)
