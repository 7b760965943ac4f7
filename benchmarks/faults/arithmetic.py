"""Faults of arithmetic, computed in the plainest way.

Nothing here is shared with the diagnosis that has to recognise it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import interpreter
from espdl_hil.diagnosis import Cause
from espdl_hil.diagnosis.replay import cut_node
from espdl_hil.espdl import unpack_filter
from faults.device import Flaw
from faults.kinds import Injection, NoPlace, Random, Register, linear_nodes, pick, summing_nodes

if TYPE_CHECKING:
    from espdl_hil.diagnosis.mismatch import Array, Tensors
    from espdl_hil.espdl import Graph, Node
    from faults.subjects import Subject

KINDS = Register()
Finish = Callable[[Any, Any, Any, Any], Any]  # sums, shift, node, right output -> output


# -- sums ------------------------------------------------------------------------------------


def plain_sums(graph: Graph, target: str, node: Node, inputs: Tensors) -> tuple[Array, Array]:
    """Accumulators of a summing node before they are shifted, and the shift.

    Returns:
        int64 of the output's shape, and int64 that broadcasts to it.
    """
    if node.op_type == "Conv":
        return _convolution(graph, target, node, inputs)
    a, b = operands(graph, node, inputs)
    if node.op_type == "Mul":
        exponents = sum(graph.info(name).exponents[0] for name in node.inputs)
        shift = np.int64(graph.value_info[node.outputs[0]].exponents[0] - exponents)
        # ESP-DL multiplies in float32, which rounds the larger products of int16
        return (a * b).astype(np.float32).astype(np.int64), shift
    return (a + b if node.op_type == "Add" else a - b), np.int64(0)


def operands(graph: Graph, node: Node, inputs: Tensors) -> list[Array]:
    """The node's inputs as int64, constants included."""
    constants = graph.initializers
    sources = [constants[n].array if n in constants else inputs[n] for n in node.inputs]
    return [source.astype(np.int64) for source in sources]


def _convolution(graph: Graph, target: str, node: Node, inputs: Tensors) -> tuple[Array, Array]:
    x = inputs[node.inputs[0]].astype(np.int64)
    stored = graph.initializers[node.inputs[1]]
    depthwise = node.attributes.get("group", 1) != 1
    w = unpack_filter(stored.raw, stored.info.shape, target, depthwise=depthwise).astype(np.int64)
    pads, strides, dilations = (list(node.attributes[k]) for k in ("pads", "strides", "dilations"))
    if x.ndim == 3:
        x = x[:, None]
        pads, strides, dilations = [0, pads[0], 0, pads[1]], [1, *strides], [1, *dilations]
    x = np.pad(x[0], ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
    n, kh, kw, _ = w.shape
    height = (x.shape[0] - (kh - 1) * dilations[0] - 1) // strides[0] + 1
    width = (x.shape[1] - (kw - 1) * dilations[1] - 1) // strides[1] + 1
    total = np.zeros((height, width, n), np.int64)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilations[0], j * dilations[1]
            part = x[
                top : top + (height - 1) * strides[0] + 1 : strides[0],
                left : left + (width - 1) * strides[1] + 1 : strides[1],
            ]
            total += part * w[:, i, j, 0] if depthwise else part @ w[:, i, j].T
    if len(node.inputs) > 2 and node.inputs[2]:
        total += graph.initializers[node.inputs[2]].raw
    out = graph.value_info[node.outputs[0]].exponents[0]
    shift = out - graph.info(node.inputs[0]).exponents[0] - np.array(stored.info.exponents)
    return total[None] if len(inputs[node.inputs[0]].shape) == 4 else total, shift


def rounded(sums: Array, shift: Array, mode: str) -> Array:
    """Divide by ``2**shift`` in exact arithmetic; *mode* is up, even, away or down."""
    shift = np.broadcast_to(np.asarray(shift, np.int64), sums.shape)
    right = np.maximum(shift, 0)
    low = sums >> right
    rest = sums - (low << right)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    tie = (rest == half) & (right > 0)
    above = rest > half
    if mode == "up":
        low = low + (above | tie)
    elif mode == "even":
        low = low + (above | (tie & (low & 1 == 1)))
    elif mode == "away":
        low = low + (above | (tie & (sums > 0)))
    return low << np.maximum(-shift, 0)


def narrowed(values: Array, node: Node, like: Array) -> Array:
    """Relu if the node has it, then saturate."""
    info = np.iinfo(like.dtype)
    low = 0 if node.attributes.get("activation") == "Relu" else info.min
    return values.clip(low, info.max).astype(like.dtype).reshape(like.shape)


def mode_of(subject: Subject) -> str:
    """What the target makes of a half."""
    return "even" if subject.target == "esp32p4" else "up"


class _Finished(Flaw):
    """Some summing nodes finish their sums another way."""

    def __init__(self, subject: Subject, names: set[str], finish: Finish) -> None:
        self._subject, self._names, self._finish = subject, names, finish

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        if node.name not in self._names:
            return output
        sums, shift = plain_sums(self._subject.graph, self._subject.target, node, inputs)
        return self._finish(sums, shift, node, output)


class ShiftOff(_Finished):
    """A node shifts by more or fewer bits, of all channels or of some."""

    def __init__(self, subject: Subject, node: Node, by: Array | int) -> None:
        mode = mode_of(subject)
        super().__init__(
            subject,
            {node.name},
            lambda sums, shift, n, out: narrowed(rounded(sums, shift + by, mode), n, out),
        )


class _Mapped(Flaw):
    """The finished result of some nodes, mapped."""

    def __init__(self, names: set[str], change: Callable[[Array], Array]) -> None:
        self._names, self._change = names, change

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        return self._change(output) if node.name in self._names else output


# -- exponents -------------------------------------------------------------------------------


@KINDS.kind("shift off", "arithmetic", Cause.EXPONENT)
def shift_off(subject: Subject, rng: Random) -> Injection:
    node = pick(rng, summing_nodes(subject.graph))
    return Injection(ShiftOff(subject, node, int(rng.choice([-1, 1, 2]))))


@KINDS.kind("result shifted again", "arithmetic", Cause.EXPONENT)
def shifted_again(subject: Subject, rng: Random) -> Injection:
    """The finished result shifted once more, rounding down."""
    node = pick(rng, summing_nodes(subject.graph))
    by = int(rng.choice([-1, 1, 2]))

    def change(output: Array) -> Array:
        info, wide = np.iinfo(output.dtype), output.astype(np.int64)
        return (wide >> by if by > 0 else wide << -by).clip(info.min, info.max).astype(output.dtype)

    return Injection(_Mapped({node.name}, change))


class _Requantized(Flaw):
    """One node uses another output exponent: the interpreter's kernel, told so."""

    def __init__(self, subject: Subject, node: Node, by: int) -> None:
        self._subject, self._node, self._by = subject, node, by

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        if node.name != self._node.name:
            return output
        name = node.outputs[0]
        alone = cut_node(self._subject.graph, node, {**inputs, name: output})
        info = replace(alone.outputs[0], exponents=(alone.outputs[0].exponents[0] + self._by,))
        alone = replace(alone, outputs=(info,), value_info={**alone.value_info, name: info})
        return interpreter.load(alone, self._subject.target).step(dict(inputs))[name]


@KINDS.kind("requantization", "arithmetic", Cause.EXPONENT)
def requantization(subject: Subject, rng: Random) -> Injection:
    kinds = ("AveragePool", "RequantizeLinear", "ReduceMean", "Mul")
    node = pick(rng, [n for n in subject.graph.nodes if n.op_type in kinds])
    return Injection(_Requantized(subject, node, int(rng.choice([-1, 1]))))


# -- rounding --------------------------------------------------------------------------------


def _rounding(names: Callable[[Subject, Random], set[str]], mode: str) -> Callable[..., Injection]:
    def inject(subject: Subject, rng: Random) -> Injection:
        chosen = mode or ("up" if mode_of(subject) == "even" else "even")
        return Injection(
            _Finished(
                subject,
                names(subject, rng),
                lambda sums, shift, n, out: narrowed(rounded(sums, shift, chosen), n, out),
            )
        )

    return inject


def _every(subject: Subject, rng: Random) -> set[str]:
    return {n.name for n in summing_nodes(subject.graph)}


def _one(subject: Subject, rng: Random) -> set[str]:
    shifting = (n for n in summing_nodes(subject.graph) if n.op_type in ("Conv", "Mul"))
    return {pick(rng, list(shifting)).name}


KINDS.kind("other chip's rounding", "arithmetic", Cause.ROUNDING)(_rounding(_every, ""))
KINDS.kind("rounds down", "arithmetic", Cause.ROUNDING)(_rounding(_one, "down"))
KINDS.kind("halves away from zero", "arithmetic", Cause.ROUNDING)(_rounding(_every, "away"))


class _ExactProduct(Flaw):
    """int16 Mul as vector units do it: the integer product shifted, not a float32."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        if node.op_type != "Mul" or output.dtype != np.int16:
            return output
        graph = self._subject.graph
        a, b = operands(graph, node, inputs)
        shift = plain_sums(graph, self._subject.target, node, inputs)[1]
        return narrowed(rounded(a * b, shift, mode_of(self._subject)), node, output)


@KINDS.kind("exact product", "arithmetic", Cause.ROUNDING)
def exact_product(subject: Subject, rng: Random) -> Injection:
    if subject.bits != 16 or not any(n.op_type == "Mul" for n in subject.graph.nodes):
        raise NoPlace
    return Injection(_ExactProduct(subject))


# -- limits ----------------------------------------------------------------------------------


@KINDS.kind("wraps", "arithmetic", Cause.SATURATION)
def wraps(subject: Subject, rng: Random) -> Injection:
    def finish(sums: Array, shift: Array, node: Node, output: Array) -> Array:
        values = rounded(sums, shift, mode_of(subject))
        if node.attributes.get("activation") == "Relu":
            values = np.maximum(values, 0)
        return values.astype(output.dtype).reshape(output.shape)

    return Injection(_Finished(subject, _every(subject, rng), finish))


@KINDS.kind("clamps at -max", "arithmetic", Cause.SATURATION)
def clamps(subject: Subject, rng: Random) -> Injection:
    def change(output: Array) -> Array:
        return output.clip(-np.iinfo(output.dtype).max, None)

    return Injection(_Mapped(_every(subject, rng), change))


@KINDS.kind("limits swapped", "arithmetic", Cause.SATURATION)
def limits_swapped(subject: Subject, rng: Random) -> Injection:
    """The largest value becomes the smallest, and the smallest the largest."""

    def change(output: Array) -> Array:
        info = np.iinfo(output.dtype)
        top, bottom = output == info.max, output == info.min
        return np.where(top, info.min, np.where(bottom, info.max, output)).astype(output.dtype)

    return Injection(_Mapped({n.name for n in linear_nodes(subject.graph)}, change))


@KINDS.kind("no Relu", "arithmetic", Cause.SATURATION)
def no_relu(subject: Subject, rng: Random) -> Injection:
    nodes = [n for n in linear_nodes(subject.graph) if n.attributes.get("activation") == "Relu"]

    def finish(sums: Array, shift: Array, node: Node, output: Array) -> Array:
        info = np.iinfo(output.dtype)
        values = rounded(sums, shift, mode_of(subject)).clip(info.min, info.max)
        return values.astype(output.dtype).reshape(output.shape)

    return Injection(_Finished(subject, {pick(rng, nodes).name}, finish))
