"""What can go wrong on purpose. A fault is data; it acts only after :meth:`Devkit.inject`.

Faults of the line act on the bytes between the booted application and its
client, in the order of the bytes and not of packets or time: the same seed
and the same traffic give the same damage. Faults of the arithmetic act in the
model runner, on models that are loaded after the injection. Nothing here
touches the ROM loader: flashing always works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["to_host", "to_device", "both"]


@dataclass(frozen=True)
class DropBytes:
    """Bytes vanish.

    Attributes:
        rate: Probability of each byte.
        seed: Of the choice of bytes.
        direction: Whose bytes.
    """

    rate: float
    seed: int = 0
    direction: Direction = "both"


@dataclass(frozen=True)
class CorruptBytes:
    """Bytes arrive as other bytes.

    Attributes:
        rate: Probability of each byte.
        seed: Of the choice of bytes.
        direction: Whose bytes.
    """

    rate: float
    seed: int = 0
    direction: Direction = "both"


@dataclass(frozen=True)
class DuplicateBytes:
    """Bytes arrive twice.

    Attributes:
        rate: Probability of each byte.
        seed: Of the choice of bytes.
        direction: Whose bytes.
    """

    rate: float
    seed: int = 0
    direction: Direction = "both"


@dataclass(frozen=True)
class SilentPort:
    """The application's bytes stop coming out, in this boot and all that follow.

    Attributes:
        after_bytes: Bytes that still get out after the injection.
    """

    after_bytes: int = 0


@dataclass(frozen=True)
class SlowPort:
    """The device sends slowly.

    Attributes:
        bytes_per_s: Its rate.
    """

    bytes_per_s: int


@dataclass(frozen=True)
class StuckBoot:
    """The chip hangs in its bootloader.

    Attributes:
        boots: How many boots hang; None all.
    """

    boots: int | None = None


@dataclass(frozen=True)
class Panic:
    """The application crashes while it sends: panic text, then a restart.

    Attributes:
        after_bytes: Bytes of the application that get out before.
        boots: How many boots end so; None all.
    """

    after_bytes: int
    boots: int | None = 1


@dataclass(frozen=True)
class BrownoutLoop:
    """The supply fails when the application starts: message, then a restart.

    Attributes:
        boots: How many boots end so; None all.
    """

    boots: int | None = None


LineFault = DropBytes | CorruptBytes | DuplicateBytes | SilentPort | SlowPort
BootFault = StuckBoot | Panic | BrownoutLoop
Fault = LineFault | BootFault
