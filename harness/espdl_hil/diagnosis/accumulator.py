"""Nodes that sum integers and shift: their exact sums, and what other arithmetic makes of them.

The sums' inputs come from the interpreter's own kernels (a filter with a single one copies an
element of each window to the output), and the ordinary arithmetic must give the expected values:
only then is a node taken for its sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from espdl_hil.diagnosis.replay import rounding_mode, run_steps
from espdl_hil.errors import HarnessError
from espdl_hil.espdl import TensorInfo, pack_filter, unpack_filter
from espdl_hil.interpreter.node_graph import cut_node

if TYPE_CHECKING:
    from espdl_hil.compare import Array
    from espdl_hil.diagnosis.node_replay import NodeReplay
    from espdl_hil.diagnosis.replay import Mode

Overflow: TypeAlias = Literal["saturates", "wraps", "clamps symmetrically"]

MAX_TAPS = 4096  # products of one sum; beyond, windows are too large to copy out
LANE_LIMIT = 2**19  # magnitude of the S3's 20-bit accumulator lanes, see FACTS


def settle(sums: Array, shift: Array, mode: Mode) -> Array:
    """Divide int64 *sums* by ``2**shift`` (a negative shift multiplies), rounding by *mode*."""
    right = np.clip(shift, 0, 62)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    if mode == "down":
        rounded = sums >> right
    elif mode == "to zero":
        rounded = np.sign(sums) * (np.abs(sums) >> right)
    elif mode == "halves away from zero":
        rounded = np.sign(sums) * ((np.abs(sums) + half) >> right)
    else:
        rounded = (sums + half) >> right
        if mode == "halves to even":
            tie = (right > 0) & ((sums & ((np.int64(1) << right) - 1)) == half)
            rounded = rounded - (tie & ((rounded & 1) == 1))
    result: Array = rounded << np.clip(-shift, 0, 40)
    return result


@dataclass(frozen=True)
class Factors:
    """Factors of the sums of a Conv, Gemm or MatMul.

    Attributes:
        x: int64, ``(M, K)``, or ``(M, K, N)`` for depthwise: the window of each output.
        weights: int64, ``(K, N)`` in logical order.
        bias: int64, ``(N,)``.
        shape: Logical shape of the filter ``(N, H, W, C)``, for naming a weight.
    """

    x: Array
    weights: Array
    bias: Array
    shape: tuple[int, int, int, int]

    def sums(self, weights: Array | None = None, bias: Array | None = None) -> Array:
        """``(M, N)`` int64, with other weights or another bias if given."""
        w = self.weights if weights is None else weights
        # products of two 16-bit numbers, thousands at most: exact in float64, which has a BLAS
        if self.x.ndim == 2:
            total = self.x.astype(np.float64) @ w.astype(np.float64)
        else:
            total = np.einsum("mkn,kn->mn", self.x.astype(np.float64), w.astype(np.float64))
        result: Array = total.astype(np.int64) + (self.bias if bias is None else bias)
        return result

    def column(self, channel: int) -> Array:
        """``(M, K)``: what the weights of one channel are multiplied with."""
        return self.x if self.x.ndim == 2 else self.x[:, :, channel]

    def in_lanes(self) -> Array:
        """The sums as 20-bit saturating lanes add them, in the filter's order."""
        total = np.zeros((len(self.x), self.weights.shape[1]), np.int64)
        for k in range(len(self.weights)):
            factor = self.x[:, k, None] if self.x.ndim == 2 else self.x[:, k, :]
            total = np.clip(total + factor * self.weights[k], -LANE_LIMIT, LANE_LIMIT - 1)
        return total + self.bias


@dataclass(frozen=True)
class Sums:
    """A node as sums, shift, rounding and saturation.

    Attributes:
        values: int64, ``(M, N)``: all elements of all chunks, channels last.
        shift: int64, ``(N,)`` or ``()``: bits to discard.
        relu: Negative results become 0.
        mode: How the target rounds.
        dtype: Of the output.
        factors: What the sums are made of; None for element-wise nodes.
    """

    values: Array
    shift: Array
    relu: bool
    mode: Mode
    dtype: np.dtype[Any]
    factors: Factors | None = None

    def of_channel(self, channel: int) -> Sums:
        """One channel alone: ``(M, 1)`` values and a single shift."""
        shift = self.shift[channel] if self.shift.ndim else self.shift
        return replace(self, values=self.values[:, channel, None], shift=shift, factors=None)

    def evaluate(
        self,
        *,
        values: Array | None = None,
        shift_by: int = 0,
        mode: Mode | None = None,
        overflow: Overflow = "saturates",
        relu: bool | None = None,
    ) -> Array:
        """The output, shaped like *values*, under other arithmetic."""
        sums = self.values if values is None else values
        out = settle(sums, self.shift + shift_by, mode or self.mode)
        if self.relu if relu is None else relu:
            out = np.maximum(out, 0)
        if overflow == "wraps":
            return out.astype(self.dtype)
        high = np.iinfo(self.dtype).max
        low = -high if overflow == "clamps symmetrically" else -high - 1
        return out.clip(low, high).astype(self.dtype)


def sums_of(replay: NodeReplay) -> Sums | None:
    """The node's sums; None if it does not sum, or if they do not give the expected values."""
    if not replay.quantized:
        return None
    try:
        sums = _build(replay)
    except (HarnessError, ValueError, KeyError):
        return None  # a variant of the operator that this view does not cover
    if sums is None or not np.array_equal(sums.evaluate(), replay.in_rows(replay.expected)):
        return None
    return sums


def exact_product(replay: NodeReplay) -> Sums | None:
    """A Mul as a shift of its exact product, whatever the interpreter makes of it."""
    return _build(replay) if replay.node.op_type == "Mul" and replay.quantized else None


def _build(replay: NodeReplay) -> Sums | None:
    graph, node = replay.mismatch.graph, replay.node
    kind, mode = node.op_type, rounding_mode(replay.mismatch.target)
    relu = node.attributes.get("activation") == "Relu"
    out = graph.value_info[replay.output].exponents
    channels, dtype = replay.expected.shape[-1], replay.expected.dtype
    if kind in ("Add", "Sub", "Mul"):
        exponents = [graph.info(name).exponents[0] for name in node.inputs]
        shift = out[0] - sum(exponents) if kind == "Mul" else 0
        values = _elementwise(replay, kind).reshape(-1, channels)
        return Sums(values, np.array(shift, np.int64), relu, mode, dtype)
    factors = _factors(replay)
    if factors is None:
        return None
    exponent = graph.info(node.inputs[0]).exponents[0]
    shift_n = out[0] - exponent - np.array(graph.info(node.inputs[1]).exponents, np.int64)
    shift_n = np.broadcast_to(shift_n, (channels,))
    return Sums(factors.sums(), shift_n, relu, mode, dtype, factors)


def _elementwise(replay: NodeReplay, kind: str) -> Array:
    graph = replay.mismatch.graph
    chunks = []
    for inputs in replay.inputs:
        a, b = (
            (graph.initializers[name].array if name in graph.initializers else inputs[name]).astype(
                np.int64
            )
            for name in replay.node.inputs
        )
        value = a * b if kind == "Mul" else a + b if kind == "Add" else a - b
        chunks.append(np.broadcast_to(value, replay.expected.shape[1:]))
    return np.stack(chunks)


def _factors(replay: NodeReplay) -> Factors | None:
    graph, node = replay.mismatch.graph, replay.node
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.inputs[1] not in graph.initializers:
        return None
    stored = graph.initializers[node.inputs[1]]
    if node.op_type == "MatMul" and len(stored.info.shape) != 2:
        return None
    depthwise = node.attributes.get("group", 1) != 1
    dims = stored.info.shape if node.op_type != "MatMul" else (1, 1, *stored.info.shape)
    taps = unpack_filter(stored.raw, dims, replay.mismatch.target, depthwise=depthwise)
    weights = taps.reshape(len(taps), -1).T.astype(np.int64)
    if len(weights) > MAX_TAPS:
        return None
    has_bias = len(node.inputs) > 2 and node.inputs[2]
    bias = graph.initializers[node.inputs[2]].raw if has_bias else np.zeros(len(taps))
    if node.op_type == "Conv":
        x = _windows(replay, taps.shape, depthwise=depthwise)
    else:
        x = np.concatenate([i[node.inputs[0]].reshape(-1, len(weights)) for i in replay.inputs])
    n, h, w, c = taps.shape
    return Factors(x.astype(np.int64), weights, bias.astype(np.int64), (n, h, w, c))


def _windows(replay: NodeReplay, shape: tuple[int, ...], *, depthwise: bool) -> Array:
    """The window of each output, copied out by filters with a single one."""
    n, h, w, c = shape
    taps = h * w * c
    dtype = replay.inputs[0][replay.node.inputs[0]].dtype
    if not depthwise:
        ones = np.eye(taps, dtype=dtype).reshape(taps, h, w, c)
        return _convolve(replay, ones, depthwise=False).reshape(-1, taps)
    columns = []
    for tap in range(taps):
        one = np.zeros((n, h * w, 1), dtype)
        one[:, tap] = 1
        columns.append(_convolve(replay, one.reshape(n, h, w, 1), depthwise=True).reshape(-1, n))
    return np.stack(columns, axis=1)


def _convolve(replay: NodeReplay, taps: Array, *, depthwise: bool) -> Array:
    """The node with another filter, no bias, no activation and no shift."""
    graph, node, target = replay.mismatch.graph, replay.node, replay.mismatch.target
    source, name = node.inputs[:2]
    n, h, w, c = taps.shape
    stored = graph.initializers[name]
    spatial = (w,) if len(stored.info.shape) == 3 else (h, w)
    dims = (*spatial, n, 1) if depthwise else (*spatial, c, n)
    info = TensorInfo(name, stored.info.dtype, dims, (0,))
    raw = pack_filter(taps, target, depthwise=depthwise)
    shape = (*replay.expected.shape[1:-1], n)
    attributes = {k: v for k, v in node.attributes.items() if k != "activation"}
    plain = replace(node, inputs=(source, name), attributes=attributes)
    tensors = {**replay.inputs[0], replay.output: np.empty(shape, replay.expected.dtype)}
    alone = cut_node(graph, plain, tensors)
    result = replace(alone.outputs[0], exponents=graph.info(source).exponents)
    alone = replace(
        alone,
        outputs=(result,),
        value_info={**alone.value_info, replay.output: result},
        initializers={name: replace(stored, info=info, raw=raw, span=None)},
    )
    return run_steps(alone, target, replay.inputs, replay.output)
