"""What can go wrong on purpose. A fault is data; it acts only after :meth:`Devkit.inject`.

Faults of the line act on the bytes between the booted application and its
client, in the order of the bytes and not of packets or time: the same seed
and the same traffic give the same damage. Faults of the arithmetic act in the
model runner: those of weights, tables and operators on models that are loaded
after the injection, those of state and outputs from the next step on. Nothing
here touches the ROM loader: flashing always works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["to_host", "to_device", "both"]


@dataclass(frozen=True)
class Fault:
    """Base of all faults."""


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


# -- the arithmetic ----------------------------------------------------------


@dataclass(frozen=True)
class ModelFault(Fault):
    """A fault of the arithmetic.

    Attributes:
        model: Name of the model; None every model that has what the fault acts on.
    """

    model: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class LoadFault(ModelFault):
    """A fault that a model has from its loading on."""


@dataclass(frozen=True)
class WrongRounding(LoadFault):
    """A half is rounded as on the other target."""


@dataclass(frozen=True)
class WrongShift(LoadFault):
    """A node's integer results are shifted too far before they are stored.

    Attributes:
        node: Name of the node.
        bits: How much too far to the right, rounding down; negative is too little, saturating.
    """

    node: str
    bits: int = 1


@dataclass(frozen=True)
class SaturationWrap(LoadFault):
    """Where a node saturates, the result wraps to the other end instead.

    Attributes:
        node: Name of the node.
    """

    node: str


@dataclass(frozen=True)
class LutEntry(LoadFault):
    """One entry of a node's look-up table is wrong.

    Attributes:
        node: Name of the node.
        index: Which entry, in stored order.
        xor: Bits that are flipped in it.
    """

    node: str
    index: int
    xor: int = 1


@dataclass(frozen=True)
class WeightBit(LoadFault):
    """One bit of a constant flips after the model was hashed.

    Attributes:
        tensor: Name of the constant.
        element: Which element, in stored order.
        bit: Which bit of it.
    """

    tensor: str
    element: int
    bit: int = 0


@dataclass(frozen=True)
class StateKept(ModelFault):
    """A reset is acknowledged and does nothing."""


@dataclass(frozen=True)
class StateDropped(ModelFault):
    """The caches are lost before a step.

    Attributes:
        step: Which step since the last reset, from 0; None before every step.
    """

    step: int | None = None


@dataclass(frozen=True)
class OutputUnwritten(ModelFault):
    """A step does not write an output; whatever its memory held stays.

    Attributes:
        output: Name of the graph output.
        step: Which step since the last reset, from 0; None every step.
    """

    output: str
    step: int | None = None
