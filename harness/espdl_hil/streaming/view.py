"""What one tensor of a streaming file holds in each chunk, seen from the offline model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from espdl_hil.streaming.timing import with_frames

if TYPE_CHECKING:
    from fractions import Fraction

    from espdl_hil.streaming.findings import Rule
    from espdl_hil.streaming.timing import Flow, Shape, Window


@dataclass(frozen=True)
class Origin:
    """Where surplus frames came from: what is named if they turn out to be wrong."""

    rule: Rule
    node: str


@dataclass(frozen=True)
class View:
    """Frames of a tensor in one chunk.

    ::

        chunk of 3, surplus 2:   old old new new new
        last frame of chunk i is offline frame (i + 1) * frames - 1 - delay

    Attributes:
        axis: The frame axis, in the file's layout.
        frames: New frames per chunk, without the surplus.
        surplus: Frames of earlier chunks in front; below 0 for frames that are missing.
        delay: Frames by which the last one lags the offline model.
        warmup: Offline frames ``0 .. warmup - 1`` may differ.
        clean: What comes before offline frame 0 is zero.
        sparse: Only every so many frames is anything but zero, behind InsertZeros.
        origin: Where the surplus came from; None while there is none.
        repaired: Something before was wrong and has been reported; this is what it should be.
    """

    axis: int
    frames: int
    surplus: int = 0
    delay: int = 0
    warmup: int = 0
    clean: bool = True
    sparse: int = 1
    origin: Origin | None = None
    repaired: bool = False

    @staticmethod
    def of(flow: Flow, chunk: int) -> View:
        """What a right conversion makes of a tensor."""
        return View(
            axis=flow.axis,
            frames=int(flow.rate * chunk),
            delay=flow.delay,
            warmup=flow.warmup,
            clean=flow.clean,
            sparse=flow.sparse,
            repaired=True,
        )

    @property
    def count(self) -> int:
        """All frames that are there, old and new."""
        return self.frames + self.surplus

    def there(self, shape: Shape) -> Shape:
        """What the streaming file has in place of an offline shape."""
        return with_frames(shape, self.axis, self.count)

    def cut(self, front: int, back: int) -> View:
        """Drop frames at the front and at the back of what is there."""
        surplus = self.surplus - front - back
        origin = self.origin if surplus else None
        return replace(self, surplus=surplus, delay=self.delay + back, origin=origin)

    def scaled(self, factor: Fraction | int) -> View:
        """Let each frame become *factor* frames."""
        return replace(
            self,
            frames=int(self.frames * factor),
            surplus=int(self.surplus * factor),
            delay=int(self.delay * factor),
            warmup=-int(-self.warmup * factor // 1),
        )

    def windowed(self, window: Window) -> View | None:
        """What a window of the offline model makes of them, unpadded; None if it slips in phase."""
        stride = window.stride
        shift = window.pad_begin - self.surplus - self.delay
        if shift % stride or self.frames % stride:
            return None
        frames = self.frames // stride
        count = max(0, (self.count - window.extent) // stride + 1)
        cold = self.warmup > 0 or not self.clean
        surplus = count - frames
        delay = -surplus - shift // stride
        return View(
            axis=self.axis,
            frames=frames,
            surplus=surplus,
            delay=delay,
            warmup=window.warmup_from(self.warmup - self.sparse) if cold else 0,
            clean=surplus == 0 and delay <= 0,
        )
