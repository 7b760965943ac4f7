"""Recovery: climbs a ladder of attempts, gentlest first, and keeps what came of each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from espdl_hil.device.errors import is_retryable
from espdl_hil.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RECOVERIES: Final = 8  # of one DUT; a board that needs more is broken
RECOVERED: Final = "recovered"


@dataclass(frozen=True)
class Incident:
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


class Rung(NamedTuple):
    """One thing to try; *attempt* raises when it did not help, and gives False if it cannot be."""

    action: str
    attempt: Callable[[], bool | None]


class Recovery:
    """The recoveries of one device.

    Attributes:
        incidents: Every attempt, oldest first.
    """

    def __init__(self) -> None:
        self.incidents: list[Incident] = []

    @property
    def is_exhausted(self) -> bool:
        """Whether the device has been brought back too often."""
        return sum(incident.recovered for incident in self.incidents) >= MAX_RECOVERIES

    def climb(self, ladder: tuple[Rung, ...], reason: str) -> None:
        """Try one rung after the other until one helps.

        Args:
            ladder: Gentlest first.
            reason: What had happened.

        Raises:
            HarnessError: The last attempt's; no rung helped, or no further one would.
        """
        last: HarnessError | None = None
        for action, attempt in ladder:
            started = time.monotonic()
            failure: HarnessError | None = None
            try:
                if attempt() is False:
                    continue
            except HarnessError as error:
                failure = error
            outcome = RECOVERED if failure is None else headline(failure.message)
            seconds = time.monotonic() - started
            self.incidents.append(Incident(headline(reason), action, outcome, seconds))
            if failure is None:
                return
            last = failure
            if not is_retryable(failure):
                break
        if last is None:
            raise AssertionError("no rung of the ladder could be tried")
        raise last


def headline(text: str) -> str:
    """The first line of an error: without its console tail."""
    return text.splitlines()[0] if text else ""
