"""Does another constant reproduce what was observed? Tables, weights, biases, packing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import Cause, Explanation
from espdl_hil.diagnosis.replay import activations
from espdl_hil.diagnosis.solver import solve
from espdl_hil.espdl import pack_filter, unpack_filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.diagnosis.accumulator import Products, Sums
    from espdl_hil.diagnosis.mismatch import Array
    from espdl_hil.diagnosis.node_replay import Suspect

MAX_CHANNELS = 64  # filters that are solved; more are never one corrupted word


def table(suspect: Suspect) -> Explanation | None:
    """The node maps each value to a value, and some of these are wrong."""
    node = suspect.node
    if node.op_type != "LUT" and "lut" not in node.attributes:
        return None
    source = activations(suspect.case.graph, node)[0]
    x = np.concatenate([inputs[source].reshape(-1) for inputs in suspect.inputs])
    expected, observed = suspect.expected.reshape(-1), suspect.observed.reshape(-1)
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


def weights(suspect: Suspect, sums: Sums | None) -> Explanation | None:
    """Another order of the filter, or other elements of filter or bias."""
    if sums is None or sums.products is None:
        return None
    found = _packing(suspect, sums, sums.products) or _no_bias(suspect, sums, sums.products)
    if found is None and len(suspect.channels) <= MAX_CHANNELS:
        found = _elements(suspect, sums, sums.products)
    return None if found is None else Explanation(Cause.WEIGHTS, found)


def _packing(suspect: Suspect, sums: Sums, products: Products) -> tuple[str, ...] | None:
    """The same bytes in another order."""
    target = suspect.case.target
    n, h, w, c = products.shape
    depthwise = products.x.ndim == 3
    taps = products.weights.T.reshape(n, h, w, c).astype(suspect.expected.dtype)
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
        values = products.sums(weights=order.reshape(n, -1).T.astype(np.int64))
        if np.array_equal(sums.evaluate(values=values), suspect.rows):
            return (f"{name} reproduce {suspect.span}",)
    return None


def _no_bias(suspect: Suspect, sums: Sums, products: Products) -> tuple[str, ...] | None:
    values = products.sums(bias=np.zeros_like(products.bias))
    if np.array_equal(sums.evaluate(values=values), suspect.rows):
        return (f"the node without its bias reproduces {suspect.span}",)
    return None


def _elements(suspect: Suspect, sums: Sums, products: Products) -> tuple[str, ...] | None:
    """Elements of filter or bias, for each channel that differs."""
    observed, channels = suspect.rows, suspect.channels.tolist()
    solved: list[str] = []
    for channel in channels:
        found = solve(sums, products, channel, observed[:, channel])
        if found is None:
            break
        solved += [_name(suspect, products, channel, *change) for change in found.items()]
    else:
        return (f"{solved[0]}: reproduces {suspect.span}", *solved[1:4])
    width = observed.shape[1]
    if width < 2 or len(channels) > max(1, width // 4):
        return None
    listed = ", ".join(map(str, channels[:8]))
    return (f"only channel {listed} of {width} differ: their filters or biases",)


def _name(suspect: Suspect, products: Products, channel: int, index: int, delta: int) -> str:
    """One changed element in words."""
    node = suspect.node
    _, h, w, c = products.shape
    if index == len(products.weights):
        name, value = node.inputs[2] if len(node.inputs) > 2 else "bias", products.bias[channel]
        place = f"[{channel}]"
    else:
        name, value = node.inputs[1], products.weights[index, channel]
        place = "[n={}, h={}, w={}, c={}]".format(channel, *np.unravel_index(index, (h, w, c)))
    flipped = int(value) ^ (int(value) + delta)
    single = (flipped if flipped >= 0 else ~flipped).bit_count() <= 1
    how = ", one bit flipped" if single else ""
    return f"{name} {place} is {value + delta}, not {value}{how}"
