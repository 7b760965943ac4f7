"""Sums that leave their accumulators, repeated as the vector unit sums them: one product a time.

A layer is first computed with exact sums. Three bounds, each on the largest running sum that any
order of the products could reach, then leave only what may have saturated: one from the weights
alone, at load; one from the range of the input; and the sum of magnitudes of each single output.
What is left is walked through, product by product, and replaces the exact result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.accumulate import Products, settled
from espdl_hil.operators.kernel import Kernel, in_order
from espdl_hil.operators.numeric import DOUBLE_EXACT, FLOAT_EXACT, limits

if TYPE_CHECKING:
    from espdl_hil.espdl import Array

MAX_NARROW = 32  # lanes of int8 data; int16 data has wider ones
NORM_MARGIN = 1.001  # more than float32 loses in a sum of squares
WALK_ELEMENTS = 2**19  # products that are walked through at once


@dataclass
class LaneLog:
    """What saturated in one node since the caches were last zeroed.

    Attributes:
        node: Name of the node.
        bits: Width of the accumulators that some input could fill.
        elements: Outputs computed.
        saturated: Outputs whose accumulator ended at another value than the exact sum.
        channels: Output channels of those.
        error: Sum of squared differences of the outputs, LSB squared.
    """

    node: str
    bits: int
    elements: int = 0
    saturated: int = 0
    channels: set[int] = field(default_factory=set)
    error: float = 0.0

    def __str__(self) -> str:
        channels = "1 channel" if len(self.channels) == 1 else f"{len(self.channels)} channels"
        wider = "int16 for this layer (40-bit lanes), " if self.bits <= MAX_NARROW else ""
        return (
            f"{self.node}: {self.saturated} of {self.elements} elements ({channels}) saturated in "
            f"{self.bits}-bit lanes, {self.sqnr_lost_db:.1f} dB of SQNR lost; what helps: {wider}"
            "a coarser scale of its input or weights, or its input channels split over two layers "
            "that are added"
        )

    def clear(self) -> None:
        """Forget everything."""
        self.elements, self.saturated, self.channels, self.error = 0, 0, set(), 0.0

    def note(self, channels: Array, difference: Array) -> None:
        """Count outputs that saturated.

        Args:
            channels: (P,) output channel of each.
            difference: (P,) output minus that of the exact sum, LSB.
        """
        self.saturated += len(channels)
        self.channels.update(np.unique(channels).tolist())
        self.error += float(np.square(difference.astype(np.float64)).sum())

    @property
    def sqnr_lost_db(self) -> float:
        """How much larger saturation made the node's noise than rounding alone, dB.

        Rounding to a whole LSB has a noise of 1/12 LSB squared an output.
        """
        rounding = self.elements / 12
        return 10 * math.log10((rounding + self.error) / rounding) if self.elements else 0.0


@dataclass(frozen=True)
class _Room:
    """What an input may be without any channel saturating.

    Attributes:
        peak: Largest magnitude of an element.
        lengths: (N,) of each channel: Euclidean length of the elements that meet its weights.
        shortest: Of these.
    """

    peak: float
    lengths: Array
    shortest: float

    @classmethod
    def of(cls, above: Array, up: Array, below: Array, down: Array) -> _Room:
        """The room of channels whose sums may rise by *up* and fall by *down* (N,).

        A unit of input adds no more than *above* and takes no more than *below*, both (K, N).
        """
        room = np.concatenate((up, down)) / NORM_MARGIN
        sides = np.concatenate((above, below), axis=1)
        tiny = np.finfo(np.float64).tiny
        peak = (room / np.maximum(sides.sum(0), tiny)).min(initial=np.inf)
        lengths = room / np.maximum(np.sqrt(np.square(sides).sum(0)), tiny)
        lengths = lengths.reshape(2, -1).min(0)
        return cls(float(peak), lengths, float(lengths.min(initial=np.inf)))


class Saturation:
    """Corrects the outputs of one layer where its accumulators saturated.

    Args:
        products: The layer, with accumulators.
        log: Told of every output that saturated.
        positive: No input is negative.
    """

    def __init__(self, products: Products, log: LaneLog, *, positive: bool = False) -> None:
        assert products.accumulators is not None
        self._products, self._log = products, log
        self._accumulators = products.accumulators
        wide = products.weights.astype(np.float64)
        above, below = np.maximum(wide, 0).sum(0), np.maximum(-wide, 0).sum(0)
        high, bias = self._accumulators.high.astype(np.float64), products.bias.astype(np.float64)
        smallest, largest = limits(products.out_type)
        self._unsigned, self._largest = np.dtype(f"u{products.out_type.itemsize}"), largest
        smallest = 0 if positive else smallest
        up, down = high - bias, high + 1 + bias
        self._risky = np.flatnonzero(
            (above * largest - below * smallest > up) | (below * largest - above * smallest > down)
        )
        above, below, up, down = (side[self._risky] for side in (above, below, up, down))
        self._sides = np.block([[above[:, None], below[:, None]], [below[:, None], above[:, None]]])
        self._up, self._down, self._room = up, down, np.concatenate((up, down))
        bound = float(products.bound.max(initial=0.0)) * 2
        self._exact = bound < DOUBLE_EXACT
        risky = wide[:, self._risky]
        self._weights: Array = risky.astype(np.float32 if bound < FLOAT_EXACT else np.float64)
        self._magnitudes: Array = np.abs(self._weights)
        self._any = _Room.of(np.abs(risky), up, np.abs(risky), down)
        self._positive = _Room.of(np.maximum(risky, 0), up, np.maximum(-risky, 0), down)

    @property
    def possible(self) -> bool:
        """Whether any input could saturate any channel."""
        return len(self._risky) > 0

    @property
    def bits(self) -> int:
        """Width of the narrowest accumulator that could saturate."""
        return int(self._accumulators.bits[self._risky].min(initial=64))

    def _span(self, source: Array) -> tuple[float, float, _Room | None]:
        """The range of the input; None when no channel could saturate within it."""
        # read as unsigned, one look tells whether anything is negative
        unsigned, lowest = int(source.view(self._unsigned).max()), 0.0
        highest, room = float(unsigned), self._positive
        if unsigned > self._largest:
            highest, lowest, room = float(source.max()), float(source.min()), self._any
        safe = max(highest, -lowest) <= room.peak
        return max(highest, 0.0), max(-lowest, 0.0), None if safe else room

    def _reached(self, highest: float, deepest: float) -> Array:
        """Indices of the risky channels that could saturate, for inputs of that range."""
        beyond = self._sides @ (highest, deepest) > self._room
        half = len(self._risky)
        return np.flatnonzero(beyond[:half] | beyond[half:])

    def correct(self, rows: Array, source: Array, destination: Array) -> None:
        """Correct a dense layer.

        Args:
            rows: (M, K) integers of any type, the input of each output row.
            source: What the rows are made of, and zeros; its range is looked at.
            destination: (M, N), holds the results of exact sums.
        """
        self._log.elements += destination.size
        highest, deepest, room = self._span(source)
        if room is None:
            return
        far = np.arange(len(rows))
        if self._exact:
            # a sum of magnitudes is at most the product of both lengths, which are cheap
            x: Array = rows.astype(self._weights.dtype, copy=False)
            squares = np.vecdot(x, x)
            far = np.flatnonzero(squares > room.shortest * room.shortest)
        reached = self._reached(highest, deepest) if len(far) else far
        if self._exact and len(reached):
            reached = reached[room.lengths[reached] < math.sqrt(squares.max())]
        if not len(reached):
            return
        chosen, picked = self._candidates(rows, far, reached)
        size = max(1, WALK_ELEMENTS // rows.shape[1])
        for first in range(0, len(chosen), size):
            part = slice(first, first + size)
            self._walk(rows, chosen[part], picked[part], destination)

    def _candidates(self, rows: Array, far: Array, reached: Array) -> tuple[Array, Array]:
        """Rows of *far* and channels of *reached* whose running sums could leave."""
        channels = self._risky[reached]
        if not self._exact:
            return np.repeat(far, len(channels)), np.tile(channels, len(far))
        up, down = self._up[reached], self._down[reached]
        weights, magnitudes = self._weights, self._magnitudes
        if len(reached) < len(self._risky):
            weights, magnitudes = weights[:, reached], magnitudes[:, reached]
        x = rows[far].astype(weights.dtype)
        magnitude = (np.abs(x) @ magnitudes).astype(np.float64)
        total = x @ weights
        which, column = np.nonzero((magnitude + total > 2 * up) | (magnitude - total > 2 * down))
        return far[which], channels[column]

    def _walk(self, rows: Array, chosen: Array, picked: Array, destination: Array) -> None:
        """Sum some outputs as the chip does, and store those that saturated."""
        accumulators = self._accumulators
        for tail in (False, True):
            mine = (picked >= accumulators.blocked) == tail
            row, channel = chosen[mine], picked[mine]
            if not len(row):
                continue
            kind = np.int32 if int(accumulators.bits[channel].max()) <= 20 else np.int64
            weights = self._products.weights.T[channel].astype(kind)
            terms = rows[row].astype(kind) * weights
            if tail:
                terms = np.add.reduceat(terms, accumulators.starts, axis=1)
            limit = accumulators.high[channel].astype(kind)
            sums = self._products.bias[channel].astype(kind)
            running = np.cumsum(terms, axis=1, dtype=kind)
            exact = sums + running[:, -1]
            leaves = np.flatnonzero(
                (sums + running.max(1) > limit) | (sums + running.min(1) < ~limit)
            )
            if not len(leaves):
                continue
            row, channel, terms = row[leaves], channel[leaves], terms[leaves]
            limit, sums, exact = limit[leaves], sums[leaves], exact[leaves]
            for term in np.ascontiguousarray(terms.T):
                np.add(sums, term, out=sums)
                np.minimum(sums, limit, out=sums)
                np.maximum(sums, ~limit, out=sums)
            self._store(sums, exact, (row, channel), destination)

    def correct_taps(self, taps: list[Array], source: Array, destination: Array) -> None:
        """Correct a depthwise layer.

        Args:
            taps: K views (OH, OW, C) of the padded input, one a tap.
            source: See `correct`.
            destination: (OH, OW, C), holds the results of exact sums.
        """
        self._log.elements += destination.size
        highest, deepest, room = self._span(source)
        if room is None:
            return
        channels = self._risky[self._reached(highest, deepest)]
        limit = self._accumulators.high[channels]
        shape = (*destination.shape[:2], len(channels))
        sums = np.broadcast_to(self._products.bias[channels], shape).copy()
        exact = sums.copy()
        for tap, weights in zip(taps, self._products.weights[:, channels], strict=True):
            term = tap[..., channels].astype(np.int64) * weights
            np.add(exact, term, out=exact)
            np.add(sums, term, out=sums)
            np.minimum(sums, limit, out=sums)
            np.maximum(sums, ~limit, out=sums)
        line, column, index = np.nonzero(sums != exact)
        place = (line, column, channels[index])
        found = (line, column, index)
        self._store(sums[found], exact[found], place, destination)

    def _store(
        self, sums: Array, exact: Array, place: tuple[Array, ...], destination: Array
    ) -> None:
        """Store and note the outputs at *place* whose sums are not the exact ones."""
        left = np.flatnonzero(sums != exact)
        if not len(left):
            return
        place = tuple(index[left] for index in place)
        channels = place[-1]
        result = settled(self._products, sums[left].astype(np.int64), channels)
        meant = settled(self._products, exact[left].astype(np.int64), channels)
        destination[place] = result
        self._log.note(channels, result - meant)


def corrected(
    kernel: Kernel, saturation: Saturation | None, rows: Array, source: Array, destination: Array
) -> Kernel:
    """A kernel of exact sums, with what saturates corrected behind it; see `Saturation.correct`."""
    if saturation is None:
        return kernel
    return in_order([kernel, partial(saturation.correct, rows, source, destination)])
