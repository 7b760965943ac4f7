"""What a node adds up before it shifts, computed in the plainest way.

Shares nothing with the interpreter's kernels, nor with the diagnosis that has to recognise a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from espdl_hil.espdl import unpack_filter
from espdl_hil.targets import TARGETS, Rounding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl import Graph, Node
    from espdl_hil.simulator.faults.base import Array, NodeRun

Mode: TypeAlias = Literal["up", "even", "away", "down"]
SUMMING = ("Conv", "Add", "Sub", "Mul")


def plain_sums(run: NodeRun) -> tuple[Array, Array]:
    """Accumulators of a summing node before they are shifted, and the shift.

    Returns:
        int64 of the output's shape, and int64 that broadcasts to it.
    """
    graph, node = run.graph, run.node
    if node.op_type == "Conv":
        return _convolution(run)
    a, b = operands(graph, node, run.inputs)
    if node.op_type == "Mul":
        exponents = sum(graph.info(name).exponents[0] for name in node.inputs)
        shift = np.array(graph.value_info[node.outputs[0]].exponents[0] - exponents)
        # ESP-DL multiplies in float32, which rounds the larger products of int16
        return (a * b).astype(np.float32).astype(np.int64), shift
    return (a + b if node.op_type == "Add" else a - b), np.array(0)


def operands(graph: Graph, node: Node, inputs: Mapping[str, Array]) -> list[Array]:
    """The node's inputs as int64, constants included."""
    constants = graph.initializers
    sources = [constants[n].array if n in constants else inputs[n] for n in node.inputs]
    return [source.astype(np.int64) for source in sources]


def _convolution(run: NodeRun) -> tuple[Array, Array]:
    graph, node = run.graph, run.node
    x = run.inputs[node.inputs[0]].astype(np.int64)
    flat = x.ndim == 3
    stored = graph.initializers[node.inputs[1]]
    depthwise = node.attributes.get("group", 1) != 1
    w = unpack_filter(stored.raw, stored.info.shape, run.target, depthwise=depthwise)
    w = w.astype(np.int64)
    numbers: dict[str, Any] = dict(node.attributes)
    pads, strides, dilations = (list(numbers[k]) for k in ("pads", "strides", "dilations"))
    if flat:
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
    return (total if flat else total[None]), shift


def rounded(sums: Array, shift: Array, mode: Mode) -> Array:
    """Divide by ``2**shift`` in exact arithmetic."""
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
    result: Array = low << np.maximum(-shift, 0)
    return result


def usual_mode(target: str) -> Mode:
    """What the target makes of a half."""
    return "even" if TARGETS[target].rounding is Rounding.HALF_EVEN else "up"
