"""GRU and LSTM: state from zero at every run, one frame after the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.cell import SIGMOID_EDGE, TANH_EDGE, Cell, cell_of, gate_table
from espdl_hil.operators.numeric import quantized, rounder, sigmoid32, tanh32
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.signature import (
    OPTIONAL,
    STEP_VISITS,
    TENSOR,
    WEIGHT,
    Arithmetic,
    Operator,
    TensorRole,
    fixed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

ONE = np.float32(1)
GATES = {"GRU": 3, "LSTM": 4}
GATE_EXPONENTS = range(-15, 1)  # finer ones than int16, or coarser than 1, make no table
MAX_FRAMES = 8192  # of one run; a longer sequence than any chip is given is a damaged length
MAX_DOT_SHIFT = 30  # the portable dot product computes 1 << shift in an int


def _recurrent_shapes(view: NodeView) -> list[Shape]:
    if len(view.shape) != 3:
        raise NodeProblem(f"input {view.shape}, ESP-DL takes three dimensions")
    hidden = view.integer("hidden_size")
    directions = 2 if view.text("direction", "forward") == "bidirectional" else 1
    frames, batch = view.shape[:2] if view.integer("layout", 0) == 0 else view.shape[1::-1]
    state = (directions, batch, hidden)
    outputs: list[Shape] = [(frames, directions, batch, hidden), state]
    return [*outputs, state] if view.node.op_type == "LSTM" else outputs


def _recurrent_rules(placed: PlacedNode) -> Iterator[str]:
    gates, kind = GATES[placed.op_type], placed.op_type
    hidden, (frames, directions, batch, _) = placed.integer("hidden_size"), placed.results[0]
    if placed.integer("layout", 0) not in (0, 1):
        yield f"layout {placed.integer('layout')}"
    if frames > MAX_FRAMES:
        yield f"{frames} frames in one run, {MAX_FRAMES} is the most"
    if batch != 1:
        yield f"a batch of {batch} sequences of {frames}, the chip computes one"
    direction = placed.text("direction", "forward")
    if direction not in ("forward", "bidirectional"):
        yield f"direction {direction!r}, the chip runs forward"
    if kind == "GRU" and placed.integer("linear_before_reset", 0) == 0:
        yield "linear_before_reset is 0, ESP-DL computes PyTorch's GRU only"
    for name in ("activations", "activation_alpha", "activation_beta", "clip", "input_forget"):
        if placed.node.attributes.get(name):
            yield f"{name} is set, the chip does not read it"
    expected = {
        1: (directions, gates * hidden, placed.shape[2]),
        2: (directions, gates * hidden, hidden),
        3: (directions, 2 * gates * hidden),
        5: (directions, 1, hidden),
        6: (directions, 1, hidden),
    }
    for i, shape in expected.items():
        if placed.has(i) and placed.shape_of(i) != shape:
            yield f"input {i} has shape {placed.shape_of(i)}, expected {shape}"
    if len(placed.node.outputs) != len(placed.results):
        yield f"{len(placed.node.outputs)} outputs, the chip writes {len(placed.results)}"
    elif placed.quantized:
        yield from _gate_exponents(placed)


def _gate_exponents(placed: PlacedNode) -> Iterator[str]:
    gate = placed.integer("gate_exponent", -8)
    if gate not in GATE_EXPONENTS:
        yield f"gate_exponent {gate}, expected -15 to 0"
        return
    state = placed.output(1).exponent
    if placed.output(0).exponent != state:
        yield "Y and Y_h have different exponents; the chip copies the integers"
    if placed.has(5) and placed.info(5).exponent != state:
        yield "initial_h and Y_h have different exponents; the chip copies the integers"
    if placed.has(3) and set(placed.info(3).exponents) != {gate}:
        yield f"the bias has exponent {placed.info(3).exponents}, the gates {gate}; the chip adds"
    if placed.op_type == "LSTM":
        cells = [placed.output(2), *([placed.info(6)] if placed.has(6) else [])]
        if any(cell.exponents != (gate,) for cell in cells):
            yield f"the cell state has not the gates' exponent {gate}; the chip asserts it"
    for i, other in ((1, placed.info(0).exponent), (2, state)):
        if len(placed.info(i).exponents) != 1:
            yield f"input {i} has an exponent per channel"
        elif abs(gate - other - placed.info(i).exponents[0]) > MAX_DOT_SHIFT:
            yield f"input {i} is shifted by {gate - other - placed.info(i).exponents[0]} bits"


def _over_time(cell: Cell, step: Callable[..., tuple[Array, ...]]) -> Kernel:
    """A kernel that runs all frames, one after the other, in each direction.

    Args:
        cell: GRU or LSTM.
        step: Takes gate sums of a frame with the input's bias, those of the state, the state's
            bias, and the states; gives the states behind the frame, the output first.
    """
    states = cell.bound.outputs[1:]
    y = cell.bound.out.array.reshape(-1, cell.directions, cell.hidden)
    last = [out.array.reshape(cell.directions, cell.hidden) for out in states]

    def run() -> None:
        for direction, weights in enumerate(cell.weights):
            sums = cell.input_sums(weights) + weights.input_bias
            held = tuple(cell.start(5 + i, direction, out) for i, out in enumerate(states))
            for t in range(len(sums))[:: -1 if direction else 1]:
                of_state = cell.state_sums(weights, held[0])
                held = step(sums[t], of_state, weights.state_bias, *held)
                y[t, direction] = held[0]
            for place, state in zip(last, held, strict=True):
                place[direction] = state

    return run


def build_gru(bound: BoundNode) -> Kernel:
    """GRU, gates z r n, ``linear_before_reset``.

    Matches: ``GRU::forward_template``, ``GRU::forward_float``.
    """
    cell = cell_of(bound, 3)
    return _over_time(cell, _gru_float(cell) if cell.is_float else _gru_integer(cell))


def _gru_float(cell: Cell) -> Callable[..., tuple[Array]]:
    h = cell.hidden

    def step(of_input: Array, of_state: Array, bias: Array, state: Array) -> tuple[Array]:
        of_state = of_state + bias
        gates = sigmoid32(of_input[: 2 * h] + of_state[: 2 * h])
        z, r = gates[:h], gates[h:]
        n = tanh32(of_input[2 * h :] + r * of_state[2 * h :])
        return ((ONE - z) * n + z * state,)

    return step


def _gru_integer(cell: Cell) -> Callable[..., tuple[Array]]:
    h, output, rounding = cell.hidden, cell.bound.out, cell.bound.rounding
    sigmoid = gate_table(sigmoid32, cell.exponent, SIGMOID_EDGE, 1)
    tanh = gate_table(tanh32, cell.exponent, TANH_EDGE, 0)
    rescale, settle = output.rescale, rounder(rounding)

    def step(of_input: Array, of_state: Array, bias: Array, state: Array) -> tuple[Array]:
        of_state = of_state + bias  # int16 wraps, as on the chip; the sum with the input's is int32
        gates = sigmoid(of_input[: 2 * h].astype(np.int32) + of_state[: 2 * h])
        z, r = gates[:h], gates[h:]
        index = of_input[2 * h :] + r * of_state[2 * h :]
        settle(index)
        n = tanh(index)
        return (quantized((ONE - z) * n * rescale + z * state, rounding, output.dtype),)

    return step


def build_lstm(bound: BoundNode) -> Kernel:
    """LSTM, gates i o f c; the cell state is int16 at the gate exponent and wraps.

    Matches: ``LSTM::forward_template``, ``LSTM::forward_float``.
    """
    cell = cell_of(bound, 4)
    return _over_time(cell, _lstm_float(cell) if cell.is_float else _lstm_integer(cell))


def _lstm_float(cell: Cell) -> Callable[..., tuple[Array, Array]]:
    h = cell.hidden

    def step(
        of_input: Array, of_state: Array, bias: Array, _: Array, memory: Array
    ) -> tuple[Array, Array]:
        gates = of_input + of_state + bias
        i, o, f = sigmoid32(gates[: 3 * h]).reshape(3, h)
        memory = f * memory + i * tanh32(gates[3 * h :])
        return o * tanh32(memory), memory

    return step


def _lstm_integer(cell: Cell) -> Callable[..., tuple[Array, Array]]:
    h, output, rounding = cell.hidden, cell.bound.out, cell.bound.rounding
    sigmoid = gate_table(sigmoid32, cell.exponent, SIGMOID_EDGE, 1)
    tanh = gate_table(tanh32, cell.exponent, TANH_EDGE, 0)
    rescale, cell_rescale = output.rescale, cell.bound.outputs[2].rescale
    settle = rounder(rounding)

    def step(
        of_input: Array, of_state: Array, bias: Array, _: Array, memory: Array
    ) -> tuple[Array, Array]:
        gates = of_input + of_state + bias  # int16 wraps, as on the chip
        i, o, f = sigmoid(gates[: 3 * h]).reshape(3, h)
        moved = f * memory + i * tanh(gates[3 * h :]) * cell_rescale
        settle(moved)
        memory = moved.astype(np.int32).astype(np.int16)
        return quantized(o * tanh(memory) * rescale, rounding, output.dtype), memory

    return step


def _recurrent_macs(view: NodeView, _: Shape) -> int:
    rows = math.prod(view.shape_of(1)) + math.prod(view.shape_of(2))
    return math.prod(view.shape[:2]) * rows


def _recurrent_visits(_: NodeView, output: Shape) -> int:
    return 16 * STEP_VISITS * math.prod(output[:2])  # frames and directions, one after the other


_GATE: dict[str, tuple[str, ...]] = {"S8": ("int16",), "S16": ("int16",), "F32": ("float32",)}
_GATE_BIAS = TensorRole(_GATE, constant=True, optional=True, weight=True)
_CELL_STATE = TensorRole(_GATE, optional=True, weight=True)
_NEVER = fixed(optional=True)
_GATE_SUMS = (
    Arithmetic("SIMD", "W, R: rows of 16 n, shift >= 0", widths=("S8",)),
    Arithmetic("SIMD", "W, R: rows of 8 n, shift >= 0", float_step_lsb=1, widths=("S16",)),
)
_SHARED = (TENSOR, WEIGHT, WEIGHT, _GATE_BIAS, _NEVER, OPTIONAL)
OPERATORS = {
    "GRU": Operator(
        build_gru,
        _recurrent_shapes,
        _recurrent_rules,
        inputs=_SHARED,
        outputs=(TENSOR, TENSOR),
        limits="batch 1, forward or bidirectional, linear_before_reset",
        arithmetic=_GATE_SUMS,
        macs=_recurrent_macs,
        visits=_recurrent_visits,
    ),
    "LSTM": Operator(
        build_lstm,
        _recurrent_shapes,
        _recurrent_rules,
        inputs=(*_SHARED, _CELL_STATE, _NEVER),
        outputs=(TENSOR, TENSOR, TensorRole(_GATE, weight=True)),
        limits="batch 1, forward or bidirectional",
        arithmetic=_GATE_SUMS,
        macs=_recurrent_macs,
        visits=_recurrent_visits,
    ),
}
