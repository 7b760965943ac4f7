"""Which change of one filter gives what one channel showed? Exact: a solution reproduces it all."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.compare import Array
    from espdl_hil.diagnosis.accumulator import Factors, Sums

TRIED = 64  # changes of one element that are tried, where its bounds allow more
RUN = 4  # elements in a row, those of a 32-bit word of int8
BIAS_BITS = 32


def solve(sums: Sums, factors: Factors, channel: int, observed: Array) -> dict[int, int] | None:
    """Find the elements of filter or bias whose change reproduces a channel.

    Args:
        sums: The node.
        factors: What its sums are made of.
        channel: Which channel.
        observed: ``(M,)``, what the channel showed.

    Returns:
        Index into the filter's (H, W, C), or its length for the bias, to what is added to it;
        None if neither one element nor a short run of them explains it.
    """
    one = sums.of_channel(channel)
    x = factors.column(channel)
    x = np.concatenate([x, np.ones((len(x), 1), np.int64)], axis=1)
    values = np.append(factors.weights[:, channel], factors.bias[channel])
    return _single(one, x, values, observed) or _run(one, x, values, observed)


def _single(one: Sums, x: Array, values: Array, observed: Array) -> dict[int, int] | None:
    """One element.

    Each output bounds the sum that it was made from, so each window bounds the change of an
    element; the change lies where the bounds of all windows meet.
    """
    low, high = _bounds(one, observed)
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = np.stack([(low - one.values) / x, (high - one.values) / x])
    still = x == 0  # such a window says nothing of the element, but must be right as it is
    fits = ((low <= one.values) & (one.values <= high) | ~still).all(0)
    least = np.where(still, -np.inf, edges.min(0)).max(0)
    most = np.where(still, np.inf, edges.max(0)).min(0)
    for index in np.flatnonzero(fits & (np.ceil(least) <= np.floor(most))).tolist():
        bits = BIAS_BITS if index == len(values) - 1 else 8 * one.dtype.itemsize
        for delta in _changes(int(values[index]), bits, least[index], most[index]):
            changed = one.values[:, 0] + delta * x[:, index]
            if np.array_equal(one.evaluate(values=changed), observed):
                return {index: delta}
    return None


def _bounds(one: Sums, observed: Array) -> tuple[Array, Array]:
    """``(M, 1)`` smallest and largest sum that can give each observed value, ties included."""
    shift = int(one.shift)
    low, high = (np.ldexp(observed + half, shift) for half in (-0.5, 0.5))
    lowest, largest = _limits(one)
    low = np.where(observed <= lowest, -np.inf, low)
    high = np.where(observed >= largest, np.inf, high)
    return low[:, None], high[:, None]


def _limits(one: Sums) -> tuple[int, int]:
    info = np.iinfo(one.dtype)
    return 0 if one.relu else int(info.min), int(info.max)


def _changes(value: int, bits: int, least: float, most: float) -> Iterator[int]:
    """Changes within bounds: a single flipped bit first, then the smallest ones."""
    half = 1 << (bits - 1)
    for bit in range(bits):
        raised = (value ^ (1 << bit)) & (2 * half - 1)
        delta = (raised - 2 * half if raised >= half else raised) - value
        if least <= delta <= most:
            yield delta
    start = int(np.ceil(max(least, -half - value)))
    stop = int(np.floor(min(most, half - 1 - value)))
    nearest = sorted(range(start, min(stop, start + 2 * TRIED) + 1), key=abs)
    yield from (delta for delta in nearest[:TRIED] if delta)


def _run(one: Sums, x: Array, values: Array, observed: Array) -> dict[int, int] | None:
    """A run of elements, as a corrupted word changes them: least squares, then whole numbers."""
    lowest, largest = _limits(one)
    inside = (observed > lowest) & (observed < largest)
    wanted = np.ldexp(observed.astype(np.float64), int(one.shift)) - one.values[:, 0]
    step = float(np.ldexp(1.0, int(one.shift)))
    for length in range(2, RUN + 1):
        around = np.array(list(product((0, -1, 1), repeat=length))).T
        if inside.sum() < length:
            return None
        for start in range(len(values) - length):
            part = x[:, start : start + length]
            best = np.linalg.lstsq(part[inside].astype(np.float64), wanted[inside])[0]
            if np.abs(part[inside] @ best - wanted[inside]).max() > step:
                continue
            deltas = np.rint(best).astype(np.int64)[:, None] + around
            results = one.evaluate(values=one.values + part @ deltas)
            right = np.flatnonzero((results == observed[:, None]).all(0))
            if len(right):
                found = deltas[:, right[0]].tolist()
                return {start + i: delta for i, delta in enumerate(found) if delta}
    return None
