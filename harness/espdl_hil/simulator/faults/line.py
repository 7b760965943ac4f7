"""Faults of the serial line and of the boot.

Those of the line act on the bytes between the booted application and its client, in the order of
the bytes and not of packets or time: the same seed and the same traffic give the same damage.
Nothing here touches the ROM loader: flashing always works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from espdl_hil.simulator.faults.base import Fault

Direction = Literal["to_host", "to_device", "both"]

# -- the line ----------------------------------------------------------------


@dataclass(frozen=True)
class ScatteredFault(Fault):
    """Damage to single bytes.

    Attributes:
        rate: Probability of each byte.
        seed: Of the choice of bytes.
        direction: Whose bytes.
    """

    rate: float
    seed: int = 0
    direction: Direction = "both"


@dataclass(frozen=True)
class DropBytes(ScatteredFault):
    """Bytes vanish."""


@dataclass(frozen=True)
class CorruptBytes(ScatteredFault):
    """Bytes arrive as other bytes."""


@dataclass(frozen=True)
class DuplicateBytes(ScatteredFault):
    """Bytes arrive twice."""


@dataclass(frozen=True)
class SilentPort(Fault):
    """The application's bytes stop coming out, in this boot and all that follow.

    Attributes:
        after_bytes: Bytes that still get out after the injection.
    """

    after_bytes: int = 0


@dataclass(frozen=True)
class SlowPort(Fault):
    """The application's bytes come out slowly.

    Attributes:
        bytes_per_s: How fast.
    """

    bytes_per_s: int


@dataclass(frozen=True)
class SlowBridge(Fault):
    """The bridge between USB and UART garbles what comes faster than it can.

    Attributes:
        max_baud: The highest rate at which it works.
    """

    max_baud: int


# -- the boot ----------------------------------------------------------------


@dataclass(frozen=True)
class StuckBoot(Fault):
    """The chip hangs in its bootloader.

    Attributes:
        boots: How many boots hang; None all.
    """

    boots: int | None = None


@dataclass(frozen=True)
class Panic(Fault):
    """The application crashes while it sends: panic text, then a restart.

    Attributes:
        after_bytes: Bytes of the application, console included, that get out before: after the
            injection, and in later boots after the application's start.
        boots: How many boots end so; None all.
    """

    after_bytes: int
    boots: int | None = 1


@dataclass(frozen=True)
class BrownoutLoop(Fault):
    """The supply fails when the application starts: message, then a restart.

    Attributes:
        boots: How many boots end so; None all.
    """

    boots: int | None = None
