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
    Role,
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
    """GRU and LSTM, one sequence at a time."""
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


def _over_time(cell: Cell, direction: int) -> range:
    frames = len(cell.frames)
    return range(frames) if direction == 0 else range(frames - 1, -1, -1)


def build_gru(bound: BoundNode) -> Kernel:
    """GRU, gates z r n, ``linear_before_reset``.

    Matches: ``GRU::forward_template``, ``GRU::forward_float``.
    """
    cell = cell_of(bound, 3)
    step = _gru_float(cell) if cell.is_float else _gru_integer(cell)
    y = bound.out.array.reshape(-1, cell.directions, cell.hidden)
    last = bound.outputs[1].array.reshape(cell.directions, cell.hidden)

    def run() -> None:
        for direction, weights in enumerate(cell.weights):
            sums = cell.input_sums(weights) + weights.input_bias
            state = cell.start(5, direction, bound.outputs[1])
            for t in _over_time(cell, direction):
                state = step(sums[t], cell.state_sums(weights, state) + weights.state_bias, state)
                y[t, direction] = state
            last[direction] = state

    return run


def _gru_float(cell: Cell) -> Callable[[Array, Array, Array], Array]:
    h = cell.hidden

    def step(of_input: Array, of_state: Array, state: Array) -> Array:
        gates = sigmoid32(of_input[: 2 * h] + of_state[: 2 * h])
        z, r = gates[:h], gates[h:]
        n = tanh32(of_input[2 * h :] + r * of_state[2 * h :])
        result: Array = (ONE - z) * n + z * state
        return result

    return step


def _gru_integer(cell: Cell) -> Callable[[Array, Array, Array], Array]:
    h, output, rounding = cell.hidden, cell.bound.out, cell.bound.rounding
    sigmoid = gate_table(sigmoid32, cell.exponent, SIGMOID_EDGE, 1)
    tanh = gate_table(tanh32, cell.exponent, TANH_EDGE, 0)
    rescale, settle = output.rescale, rounder(rounding)

    def step(of_input: Array, of_state: Array, state: Array) -> Array:
        gates = sigmoid(of_input[: 2 * h].astype(np.int32) + of_state[: 2 * h])
        z, r = gates[:h], gates[h:]
        index = of_input[2 * h :] + r * of_state[2 * h :]
        settle(index)
        n = tanh(index)
        return quantized((ONE - z) * n * rescale + z * state, rounding, output.dtype)

    return step


def build_lstm(bound: BoundNode) -> Kernel:
    """LSTM, gates i o f c; the cell state is int16 at the gate exponent and wraps.

    Matches: ``LSTM::forward_template``, ``LSTM::forward_float``.
    """
    cell = cell_of(bound, 4)
    step = _lstm_float(cell) if cell.is_float else _lstm_integer(cell)
    y = bound.out.array.reshape(-1, cell.directions, cell.hidden)
    last_h, last_c = (out.array.reshape(cell.directions, cell.hidden) for out in bound.outputs[1:3])

    def run() -> None:
        for direction, weights in enumerate(cell.weights):
            sums = cell.input_sums(weights) + weights.input_bias
            state = cell.start(5, direction, bound.outputs[1])
            memory = cell.start(6, direction, bound.outputs[2])
            for t in _over_time(cell, direction):
                # int16 arithmetic wraps, as the chip's does
                gates = sums[t] + cell.state_sums(weights, state) + weights.state_bias
                state, memory = step(gates, memory)
                y[t, direction] = state
            last_h[direction], last_c[direction] = state, memory

    return run


def _lstm_float(cell: Cell) -> Callable[[Array, Array], tuple[Array, Array]]:
    h = cell.hidden

    def step(gates: Array, memory: Array) -> tuple[Array, Array]:
        i, o, f = sigmoid32(gates[: 3 * h]).reshape(3, h)
        memory = f * memory + i * tanh32(gates[3 * h :])
        return o * tanh32(memory), memory

    return step


def _lstm_integer(cell: Cell) -> Callable[[Array, Array], tuple[Array, Array]]:
    h, output, rounding = cell.hidden, cell.bound.out, cell.bound.rounding
    sigmoid = gate_table(sigmoid32, cell.exponent, SIGMOID_EDGE, 1)
    tanh = gate_table(tanh32, cell.exponent, TANH_EDGE, 0)
    rescale, cell_rescale = output.rescale, cell.bound.outputs[2].rescale
    settle = rounder(rounding)

    def step(gates: Array, memory: Array) -> tuple[Array, Array]:
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
_GATE_BIAS = Role(_GATE, constant=True, optional=True, weight=True)
_CELL_STATE = Role(_GATE, optional=True, weight=True)
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
        outputs=(TENSOR, TENSOR, Role(_GATE, weight=True)),
        limits="batch 1, forward or bidirectional",
        arithmetic=_GATE_SUMS,
        macs=_recurrent_macs,
        visits=_recurrent_visits,
    ),
}
