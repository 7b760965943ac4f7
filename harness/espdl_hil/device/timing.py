"""How long a session waits, and what for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espdl_hil.wire.framing import Packet
    from espdl_hil.wire.messages import Message


@dataclass(frozen=True)
class Timing:
    """Deadlines of a session, seconds.

    Attributes:
        boot_s: From reset to the answer to HELLO.
        hello_interval_s: Between two HELLOs while the device boots.
        repeat_s: Until a request is sent again; longer where replies usually take longer, and
            doubled each time.
        reply_s: Until an ordinary request is given up.
        slow_reply_s: The same for requests that read flash or allocate a model.
        list_s: The same for a whole list, of models or tensors.
        step_s: The same for one model step.
        write_s: Until the port must have taken a packet.
        quiet_s: Without a byte from a device that boots, or that pulses while it works.
    """

    boot_s: float = 10.0
    hello_interval_s: float = 0.25
    repeat_s: float = 0.2
    reply_s: float = 8.0
    slow_reply_s: float = 30.0
    list_s: float = 60.0
    step_s: float = 30.0
    write_s: float = 10.0
    quiet_s: float = 4.0

    def scaled(self, factor: float) -> Timing:
        """The same deadlines for a device that is *factor* times as slow."""
        return Timing(**{item.name: getattr(self, item.name) * factor for item in fields(self)})


@dataclass(slots=True, eq=False)
class Pending:
    """A request on its way. Read *reply* after :meth:`Transport.wait`."""

    request: Message
    frame: bytes
    seq: int
    deadline_s: float
    started: float = 0.0  # when it became the oldest: the device executes in order
    deadline: float = 0.0
    repeat_at: float = 0.0
    repeats: int = 0
    reply: Packet | None = None
