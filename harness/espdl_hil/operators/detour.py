"""Ways around what a chip computes wrongly: other nodes that mean the same. Only what they are."""

from __future__ import annotations

from dataclasses import dataclass, replace


class Detour:
    """One way around one node."""

    def instead_of(self, taken: Detour | None) -> Detour:
        """The detour of a node that would still be wrong behind one that was *taken*."""
        del taken
        return self


@dataclass(frozen=True)
class MoreChannels(Detour):
    """Pad the last axis before the node, and slice behind it.

    Attributes:
        channels: Elements that the node is given.
        kept: Those behind the Slice.
    """

    channels: int
    kept: int

    def instead_of(self, taken: Detour | None) -> Detour:
        """What counts are the channels that there were at first."""
        return replace(self, kept=taken.kept) if isinstance(taken, MoreChannels) else self

    def __str__(self) -> str:
        return f"padded from {self.kept} to {self.channels} channels, sliced behind it"


@dataclass(frozen=True)
class Steps(Detour):
    """Requantize several times, by no more bits at a time than the chip can.

    Attributes:
        exponents: Of the tensors between, which have the output's type; nearest the input first.
    """

    exponents: tuple[int, ...]

    def __str__(self) -> str:
        return f"in {len(self.exponents) + 1} steps, by way of exponent {self.exponents}"


@dataclass(frozen=True)
class Repeated(Detour):
    """Write out an input that the node would repeat.

    Attributes:
        index: Which input.
        axis: On which it has one element.
        times: How often.
    """

    index: int
    axis: int
    times: int

    def __str__(self) -> str:
        return f"input {self.index} written out {self.times} times along axis {self.axis}"
