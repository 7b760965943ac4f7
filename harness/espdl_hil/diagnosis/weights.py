"""Does another constant reproduce what was observed? Tables, weights, biases, packing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import Cause, Explanation
from espdl_hil.diagnosis.solver import solve
from espdl_hil.espdl import pack_filter, unpack_filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.compare import Array
    from espdl_hil.diagnosis.accumulator import Factors, Sums
    from espdl_hil.diagnosis.node_replay import NodeReplay

MAX_CHANNELS = 64  # filters that are solved; more are never one corrupted word


def table(replay: NodeReplay) -> Explanation | None:
    """The node maps each value to a value, and some of these are wrong."""
    node = replay.node
    if node.op_type != "LUT" and "lut" not in node.attributes:
        return None
    source = replay.sources[0]
    x = np.concatenate([inputs[source].reshape(-1) for inputs in replay.inputs])
    expected, observed = replay.expected.reshape(-1), replay.observed.reshape(-1)
    used, first, back = np.unique(x, return_index=True, return_inverse=True)
    if not np.array_equal(observed[first][back], observed):
        return None  # one value gave two results: no table does that
    wrong = np.flatnonzero(observed[first] != expected[first])
    entry = wrong[0]
    fact = (
        f"each input value gives one output; {len(wrong)} of {len(used)} entries used are wrong, "
        f"the first at input {used[entry]}: expected {expected[first][entry]}, "
        f"observed {observed[first][entry]}"
    )
    return Explanation(Cause.LUT, (fact, *_offset(used, expected[first], observed[first])))


def _offset(used: Array, expected: Array, observed: Array) -> Iterator[str]:
    """Whether the table is read beside the entry."""
    for by in (1, -1):
        near = dict(zip((used - by).tolist(), expected.tolist(), strict=True))
        pairs = [
            (near[x], o) for x, o in zip(used.tolist(), observed.tolist(), strict=True) if x in near
        ]
        if len(pairs) > 1 and all(a == b for a, b in pairs):
            yield f"every output is that of the entry {by:+d} beside"


def weights(replay: NodeReplay, sums: Sums | None) -> Explanation | None:
    """Another order of the filter, or other elements of filter or bias."""
    if sums is None or sums.factors is None:
        return None
    found = _whole_filter(replay, sums, sums.factors) or _elements(replay, sums, sums.factors)
    return None if found is None else Explanation(Cause.WEIGHTS, found)


def channels(replay: NodeReplay, sums: Sums | None) -> Explanation | None:
    """Only few channels differ, so only few filters can be wrong; by elimination."""
    width, wrong = replay.expected.shape[-1], replay.channels.tolist()
    if sums is None or sums.factors is None or width < 2 or len(wrong) > max(1, width // 4):
        return None
    listed = ", ".join(map(str, wrong[:8]))
    fact = f"by elimination: only channel {listed} of {width} differ, their filters or biases"
    return Explanation(Cause.WEIGHTS, (fact,))


def _whole_filter(replay: NodeReplay, sums: Sums, factors: Factors) -> tuple[str, ...] | None:
    """The same bytes in another order, or no bias."""
    target = replay.mismatch.target
    n, h, w, c = factors.shape
    depthwise = factors.x.ndim == 3
    taps = factors.weights.T.reshape(n, h, w, c).astype(replay.expected.dtype)
    dims = (h, w, n, 1) if depthwise else (h, w, c, n)
    orders = {
        "filters packed for the portable kernels": unpack_filter(
            pack_filter(taps, "c", depthwise=depthwise), dims, target, depthwise=depthwise
        ),
        "packed filters read as plain": unpack_filter(
            pack_filter(taps, target, depthwise=depthwise), dims, "c", depthwise=depthwise
        ),
    }
    for name, order in orders.items():
        values = factors.sums(weights=order.reshape(n, -1).T.astype(np.int64))
        if replay.explained_by(sums.evaluate(values=values)):
            return (f"{name} reproduce {replay.span}",)
    values = factors.sums(bias=np.zeros_like(factors.bias))
    if replay.explained_by(sums.evaluate(values=values)):
        return (f"the node without its bias reproduces {replay.span}",)
    return None


def _elements(replay: NodeReplay, sums: Sums, factors: Factors) -> tuple[str, ...] | None:
    """Elements of filter or bias, for each channel that differs."""
    wrong = replay.channels.tolist()
    if len(wrong) > MAX_CHANNELS:
        return None
    solved: list[str] = []
    observed = replay.in_rows(replay.observed)
    for channel in wrong:
        found = solve(sums, factors, channel, observed[:, channel])
        if found is None:
            return None
        solved += [_name(replay, factors, channel, *change) for change in found.items()]
    return (f"{solved[0]}: reproduces {replay.span}", *solved[1:4])


def _name(replay: NodeReplay, factors: Factors, channel: int, index: int, delta: int) -> str:
    """One changed element in words."""
    node = replay.node
    _, h, w, c = factors.shape
    if index == len(factors.weights):
        name, value = node.inputs[2] if len(node.inputs) > 2 else "bias", factors.bias[channel]
        place = f"[{channel}]"
    else:
        name, value = node.inputs[1], factors.weights[index, channel]
        place = "[n={}, h={}, w={}, c={}]".format(channel, *np.unravel_index(index, (h, w, c)))
    flipped = int(value) ^ (int(value) + delta)
    single = (flipped if flipped >= 0 else ~flipped).bit_count() <= 1
    how = ", one bit flipped" if single else ""
    return f"{name} {place} is {value + delta}, not {value}{how}"
