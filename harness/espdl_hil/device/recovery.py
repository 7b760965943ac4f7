"""Recovery: climbs a ladder of attempts, gentlest first, and keeps what came of each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from espdl_hil.device.errors import is_retryable
from espdl_hil.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_RECOVERIES: Final = 8  # of one DUT; a board that needs more is broken
RECOVERED: Final = "recovered"


@dataclass(frozen=True)
class RecoveryAttempt:
    """One attempt to bring the device back.

    Attributes:
        reason: What had happened.
        action: ``soft reset``, ``EN reset``, ``power cycle`` or ``reflash``.
        outcome: ``recovered``, or why it did not help.
        seconds: How long the attempt took.
    """

    reason: str
    action: str
    outcome: str
    seconds: float

    @property
    def recovered(self) -> bool:
        """Whether the attempt helped."""
        return self.outcome == RECOVERED


def climb(
    ladder: Mapping[str, Callable[[], bool]], reason: str, incidents: list[RecoveryAttempt]
) -> None:
    """Try one rung after the other until one helps.

    Args:
        ladder: What to try, gentlest first: an attempt raises when it did not help, and gives
            False if it cannot be made.
        reason: What had happened.
        incidents: Gets every attempt that was made.

    Raises:
        HarnessError: The last attempt's; no rung helped, or no further one would.
    """
    last: HarnessError | None = None
    for action, attempt in ladder.items():
        started = time.monotonic()
        try:
            if not attempt():
                continue
            outcome, last = RECOVERED, None
        except HarnessError as error:
            outcome, last = headline(error.message), error
        seconds = time.monotonic() - started
        incidents.append(RecoveryAttempt(headline(reason), action, outcome, seconds))
        if last is None:
            return
        if not is_retryable(last):
            break
    assert last is not None, "no rung of the ladder could be tried"
    raise last


def headline(text: str) -> str:
    """The first line of an error: without its console tail."""
    return text.splitlines()[0] if text else ""
