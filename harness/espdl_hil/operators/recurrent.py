"""GRU and LSTM: integer matrix-vector products, float gates from tables, state from zero a run.

Gate sums are int16 at the gate exponent and wrap when biases are added. The products with the
input do not depend on the state, so all frames are multiplied at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import quantized, rescale_of, rounder, scale_of, sigmoid32, tanh32

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op, Operand

SIGMOID_EDGE = np.float32(6.3)  # SigmoidLUT and TanhLUT are flat beyond
TANH_EDGE = np.float32(3.5)
INT16 = np.dtype(np.int16)
ONE = np.float32(1)


@dataclass(frozen=True)
class GateTable:
    """A gate function of an integer at the gate exponent, odd around its centre and clamped.

    Attributes:
        values: float32 of indices 0 to the edge, the last of them for all beyond.
        centre: 1 for sigmoid, which mirrors to ``1 - y``; 0 for tanh, which mirrors to ``-y``.
    """

    values: Array
    centre: np.float32

    def __call__(self, index: Array) -> Array:
        """The gate, float32.

        Matches: ``SigmoidLUT::get``, ``TanhLUT::get``.
        """
        found = self.values[np.minimum(np.abs(index.astype(np.int32)), len(self.values) - 1)]
        result: Array = np.where(index >= 0, found, self.centre - found)
        return result


def gate_table(
    function: Callable[[Array], Array], exponent: int, edge: np.float32, centre: float
) -> GateTable:
    """The table of *function* up to the edge.

    Args:
        function: ``sigmoid32`` or ``tanh32``.
        exponent: Of the gates' integers.
        edge: Real value where the table ends.
        centre: See `GateTable`.

    Matches: the constructors of ``SigmoidLUT`` and ``TanhLUT``.
    """
    scale = scale_of(exponent)
    last = int(edge / scale) + 1
    return GateTable(function(np.arange(last + 1).astype(np.float32) * scale), np.float32(centre))


@dataclass(frozen=True)
class Weights:
    """Weights of one direction.

    Attributes:
        of_input: (gates, inputs), float64 holding integers, or float32 for a float model.
        of_state: (gates, hidden), likewise.
        input_bias: (gates,) int16 or float32.
        state_bias: (gates,) int16 or float32.
    """

    of_input: Array
    of_state: Array
    input_bias: Array
    state_bias: Array


@dataclass(frozen=True)
class Cell:
    """What GRU and LSTM share.

    Attributes:
        op: The node.
        gates: Rows of the weights, 3 or 4 times the hidden size.
        hidden: Hidden size.
        directions: 1, or 2 for bidirectional.
        exponent: Of the gates.
        weights: One entry a direction.
    """

    op: Op
    gates: int
    hidden: int
    directions: int
    exponent: int
    weights: tuple[Weights, ...]

    @property
    def is_float(self) -> bool:
        """Whether the model is not quantized."""
        return self.op.input().is_float

    @property
    def frames(self) -> Array:
        """The input, (T, inputs)."""
        x = self.op.input().array
        return x.reshape(-1, x.shape[2])

    def start(self, index: int, direction: int, like: Operand) -> Array:
        """Initial state, (hidden,); zero when the node has no such input."""
        state = self.op.optional(index)
        if state is None:
            return np.zeros(self.hidden, like.dtype)
        chosen: Array = state.array.reshape(self.directions, self.hidden)[direction]
        return chosen

    def input_sums(self, weights: Weights) -> Array:
        """Products of all frames with the input weights, (T, gates), bias not added."""
        products = self.frames.astype(weights.of_input.dtype) @ weights.of_input.T
        shift = self.exponent - self.op.input().exponent - self.op.input(1).exponent
        return products if self.is_float else self._gate_integers(products, shift)

    def state_sums(self, weights: Weights, state: Array) -> Array:
        """Products of the state with the recurrent weights, (gates,), bias not added."""
        products = weights.of_state @ state.astype(weights.of_state.dtype)
        shift = self.exponent - self.op.outputs[1].exponent - self.op.input(2).exponent
        return products if self.is_float else self._gate_integers(products, shift)

    def _gate_integers(self, products: Array, shift: int) -> Array:
        """Exact sums to int16 at the gate exponent.

        Matches: ``base::dotprod_c``, which multiplies a float32.
        """
        return quantized(products.astype(np.float32) * rescale_of(shift), self.op.rounding, INT16)


def cell_of(op: Op, gates: int) -> Cell:
    """Read the node.

    Args:
        op: GRU or LSTM.
        gates: 3 or 4.
    """
    x, w, r = op.input(), op.input(1), op.input(2)
    hidden = op.view.integer("hidden_size")
    directions = 2 if op.view.text("direction", "forward") == "bidirectional" else 1
    rows = gates * hidden
    kind = np.float32 if x.is_float else np.float64
    bias = op.optional(3)
    biases = np.zeros(2 * directions * rows, np.int16) if bias is None else bias.array
    weights = tuple(
        Weights(of_input.astype(kind), of_state.astype(kind), *pair)
        for of_input, of_state, pair in zip(
            w.array, r.array, biases.reshape(directions, 2, rows), strict=True
        )
    )
    exponent = op.view.integer("gate_exponent", -8)
    return Cell(op, rows, hidden, directions, exponent, weights)


def _over_time(cell: Cell, direction: int) -> range:
    frames = len(cell.frames)
    return range(frames) if direction == 0 else range(frames - 1, -1, -1)


def build_gru(op: Op) -> Kernel:
    """GRU, gates z r n, ``linear_before_reset``.

    Matches: ``GRU::forward_template``, ``GRU::forward_float``.
    """
    cell = cell_of(op, 3)
    step = _gru_float(cell) if cell.is_float else _gru_integer(cell)
    y = op.out.array.reshape(-1, cell.directions, cell.hidden)
    last = op.outputs[1].array.reshape(cell.directions, cell.hidden)

    def run() -> None:
        for direction, weights in enumerate(cell.weights):
            sums = cell.input_sums(weights) + weights.input_bias
            state = cell.start(5, direction, op.outputs[1])
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
    h, output, rounding = cell.hidden, cell.op.out, cell.op.rounding
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


def build_lstm(op: Op) -> Kernel:
    """LSTM, gates i o f c; the cell state is int16 at the gate exponent and wraps.

    Matches: ``LSTM::forward_template``, ``LSTM::forward_float``.
    """
    cell = cell_of(op, 4)
    step = _lstm_float(cell) if cell.is_float else _lstm_integer(cell)
    y = op.out.array.reshape(-1, cell.directions, cell.hidden)
    last_h, last_c = (out.array.reshape(cell.directions, cell.hidden) for out in op.outputs[1:3])

    def run() -> None:
        for direction, weights in enumerate(cell.weights):
            sums = cell.input_sums(weights) + weights.input_bias
            state = cell.start(5, direction, op.outputs[1])
            memory = cell.start(6, direction, op.outputs[2])
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
    h, output, rounding = cell.hidden, cell.op.out, cell.op.rounding
    sigmoid = gate_table(sigmoid32, cell.exponent, SIGMOID_EDGE, 1)
    tanh = gate_table(tanh32, cell.exponent, TANH_EDGE, 0)
    rescale, cell_rescale = output.rescale, cell.op.outputs[2].rescale
    settle = rounder(rounding)

    def step(gates: Array, memory: Array) -> tuple[Array, Array]:
        i, o, f = sigmoid(gates[: 3 * h]).reshape(3, h)
        moved = f * memory + i * tanh(gates[3 * h :]) * cell_rescale
        settle(moved)
        memory = moved.astype(np.int32).astype(np.int16)
        return quantized(o * tanh(memory) * rescale, rounding, output.dtype), memory

    return step
