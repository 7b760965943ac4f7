"""How one tensor of the offline model relates to the stream. Knows arithmetic, no operators."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """A tensor that gains frames with every chunk.

    Offline frame ``m`` of the tensor is frame ``m + delay`` of the stream::

        offline          0 1 2 3 4
        stream       . . 0 1 2 3 4        delay 2: two frames without counterpart
        stream   (1) 2 3 4                delay -1: offline frame 0 came before the stream

    Attributes:
        axis: The frame axis, in the file's layout.
        rate: Frames per frame of the first input.
        delay: See above. Negative only between a Pad and what consumes it.
        valid: Offline frames that depend on real frames only, not on padding after the last
            one; may exceed the length of the tensor.
        warmup: Offline frames ``0 .. warmup - 1`` may differ in the stream.
        clean: Frames of the stream before offline frame 0 are zero, so that a cache holds
            what offline padding would have held there.
        nonnegative: No element is below zero.
        field: Input frames that one frame depends on; infinite behind a recurrence.
        past: Offline frame ``m`` depends on no input frame before ``m / rate - past``; infinite
            behind a recurrence.
        padded_by: The node whose padding limits ``valid``; empty when none does.
        sparse: Only every so many frames is anything but zero, behind InsertZeros.
    """

    axis: int
    rate: Fraction
    delay: int
    valid: int
    warmup: int = 0
    clean: bool = True
    nonnegative: bool = False
    field: Fraction | float = Fraction(1)
    past: Fraction | float = Fraction(0)
    padded_by: str = ""
    sparse: int = 1

    def padded(self, frames: int) -> Flow:
        """Prepend zero frames to the offline tensor, as Pad does."""
        warm = self.warmup > 0 or not self.clean
        return replace(
            self,
            delay=self.delay - frames,
            valid=self.valid + frames,
            warmup=self.warmup + frames if warm else 0,
            clean=self.clean or frames >= self.delay,
            past=self.past + frames / self.rate,
        )

    def trimmed(self, start: int, end: int, step: int) -> Flow:
        """Keep offline frames ``start, start + step ..`` before *end*, as Slice does."""
        delay = (self.delay + start) // step
        return replace(
            self,
            rate=self.rate / step,
            delay=delay,
            valid=-(-max(0, min(self.valid, end) - start) // step),
            warmup=-(-max(0, self.warmup - start) // step),
            # No frame of the stream lies before offline frame 0, or it was zero already.
            clean=delay == 0 or (self.clean and (start == 0 or delay < 0)),
            past=self.past - start / self.rate,
        )

    def windowed(self, window: Window, delay: int) -> Flow:
        """What a convolution or pool makes of this tensor, given the delay of the result."""
        cold = self.warmup > 0 or not self.clean
        return replace(
            self,
            rate=self.rate / window.stride,
            delay=delay,
            valid=max(0, window.frames_out(self.valid - window.pad_end)),
            warmup=window.warmup_from(self.warmup - self.sparse) if cold else 0,
            clean=delay <= 0,
            nonnegative=False,
            field=self.field + (-(-window.extent // self.sparse) - 1) * self.sparse / self.rate,
            past=self.past + window.pad_begin / self.rate,
            sparse=1,
        )

    def repeated(self, times: int) -> Flow:
        """Every frame *times* times, or with zeros behind it up to as many frames."""
        return replace(
            self,
            rate=self.rate * times,
            delay=self.delay * times,
            valid=self.valid * times,
            warmup=self.warmup * times,
        )

    def tail(self, length: int, first: int, last: int, min_prefix: int) -> Tail:
        """Keep, of *length* offline frames, those from the *first* to before the *last* to last.

        Both are counted from the end; 0 keeps the last frame.
        """
        field = self.field + (first - last - 1) / self.rate
        since = (length - first) / self.rate - self.past
        return Tail(min_prefix, self.axis, field, since)


@dataclass(frozen=True)
class Tail:
    """A tensor made of the last frames only: as long in the stream as offline.

    Attributes:
        min_prefix: Frames of the first input from which it is defined and exact.
        axis: Where its frames are, while they have an axis of their own; else -1.
        field: As in ``Flow``.
        since: The first input frame of the offline sequence that it depends on; minus infinity
            behind a recurrence.
    """

    min_prefix: int
    axis: int = -1
    field: Fraction | float = Fraction(1)
    since: Fraction | float = Fraction(0)

    def joined(self, other: Tail) -> Tail:
        """What is computed from both."""
        return replace(
            self,
            min_prefix=max(self.min_prefix, other.min_prefix),
            field=max(self.field, other.field),
            since=min(self.since, other.since),
        )


@dataclass(frozen=True)
class Still:
    """A tensor that does not change with time: a constant, a state input, or made of those."""


@dataclass(frozen=True)
class Opaque:
    """A tensor behind a node of which nothing is known.

    Attributes:
        min_prefix: As in ``Tail``, as far as it is known.
        field: As in ``Flow``, as far as it is known.
        since: As in ``Tail``, as far as it is known.
    """

    min_prefix: int = 0
    field: Fraction | float = Fraction(1)
    since: Fraction | float = math.inf


Timing: TypeAlias = Flow | Tail | Still | Opaque
STILL = Still()


@dataclass(frozen=True)
class Window:
    """Kernel geometry along the frame axis.

    Attributes:
        extent: Frames that one output spans, dilation included.
        stride: Frames between outputs.
        pad_begin: Frames of padding before the first frame.
        pad_end: Frames of padding after the last.
    """

    extent: int
    stride: int
    pad_begin: int
    pad_end: int

    def frames_out(self, frames: int) -> int:
        """Frames that the window makes of *frames*, padding included."""
        return (frames + self.pad_begin + self.pad_end - self.extent) // self.stride + 1

    def warmup_from(self, last: int) -> int:
        """Outputs that see a frame up to *last*; what comes before frame 0 counts too."""
        return max(0, (last + self.pad_begin) // self.stride + 1)

    def delay_for(self, delay_in: int) -> int:
        """The smallest delay of the result, given the input's.

        The state must lie in ``extent - stride .. extent - 1`` so that every chunk gives
        ``frames / stride`` outputs in the right phase; with a delay of at least zero it may
        be longer, which costs a delay line.
        """
        least = max(0, self.extent - self.stride)
        return max(0, -(-(least - self.pad_begin + delay_in) // self.stride))

    def state_for(self, delay_in: int, delay_out: int) -> int:
        """Frames that the cache must hold for these delays."""
        return self.pad_begin + delay_out * self.stride - delay_in


def outer_size(shape: Shape, axis: int) -> int:
    """Elements on the axes before *axis*; a flat copy is a concat only where this is 1."""
    return math.prod(shape[:axis])


def with_frames(shape: Shape, axis: int, frames: int) -> Shape:
    """A shape with another number of frames."""
    return (*shape[:axis], frames, *shape[axis + 1 :])
