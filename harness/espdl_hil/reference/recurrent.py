"""What a frame of a GRU or LSTM may give, from the reference's own state before it.

Gate sums are rounded to integers, so one that float32 may round either way moves its gate by a
step, and a step of a gate is many LSB of an int16 state. Intervals say for each element how many:
nearly always none. The state before each frame is the reference's, so nothing grows along time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators import OPERATORS
from espdl_hil.operators.cell import SIGMOID_EDGE, TANH_EDGE, Cell, cell_of
from espdl_hil.operators.node import BoundNode, Operand
from espdl_hil.operators.recurrent import GATES
from espdl_hil.reference.steps import EXACT_FLOAT, Range, U, run_node
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.reference.record import ReferenceRecord

Interval: TypeAlias = "tuple[Array, Array]"
Edge: TypeAlias = "np.float32 | None"

TABLE = 6 * U  # of a gate: expf, and a few operations on values up to 1
WHY = "float32 gates"


@dataclass(frozen=True)
class Frames:
    """All frames of a node at once, forward.

    Attributes:
        cell: The node.
        state: (T, hidden) int64, the reference's state before each frame.
        memory: (T, hidden) int64, likewise the cell state; None for a GRU.
    """

    cell: Cell
    state: Array
    memory: Array | None

    @property
    def node(self) -> BoundNode:
        """The node."""
        return self.cell.bound

    def rounded(self, low: Array, high: Array, steps: float) -> Interval:
        """Integers that an interval may be rounded to, after *steps* operations in float32."""
        half_up = self.node.rounding is Rounding.HALF_UP
        size = np.maximum(np.abs(low), np.abs(high))
        moved = U * (steps * size + half_up * (size + 0.5))
        return np.ceil(low - moved - 0.5), np.floor(high + moved + 0.5)

    def sums(self, rows: Array, weights: Array, index: int, state_exponent: int) -> Interval:
        """Gate sums (T, gates) of one matrix, int16 at the gates' exponent, bias not added."""
        shift = self.cell.exponent - state_exponent - self.node.input(index).exponent
        products = rows.astype(np.float64) @ weights.T
        scaled = np.ldexp(products, -shift)
        block = block_size(self.node.input().dtype)
        wide = not self.node.target.simd or weights.shape[1] % block or shift < 0
        if self.node.rounding is Rounding.HALF_UP:
            exact = np.floor(scaled + 0.5)
        else:
            exact = np.rint(scaled)
        low, high = self.rounded(scaled, scaled, 1)
        sure = np.abs(products) < EXACT_FLOAT / 2 if wide else np.True_
        low, high = (np.where(sure, exact, end).clip(-(2**15), 2**15 - 1) for end in (low, high))
        return low, high

    def gate(self, index: Interval, *, edge: Edge, centred: bool) -> Interval:
        """Sigmoid, or tanh, of an interval of integers; flat beyond *edge*, as the chip's tables.

        Args:
            index: Integers at the gates' exponent.
            edge: Real value; None for the function itself.
            centred: Tanh.
        """
        scale = 2.0**self.cell.exponent
        last = np.inf if edge is None else int(np.float32(edge) / np.float32(scale)) + 1
        low, high = (np.clip(end, -last, last) * scale for end in index)
        if centred:
            return np.tanh(low) - TABLE, np.tanh(high) + TABLE
        return 1 / (1 + np.exp(-low)) - TABLE, 1 / (1 + np.exp(-high)) + TABLE

    def store(self, low: Array, high: Array, steps: float) -> Interval:
        """An interval of outputs, LSB, as it is stored."""
        info = np.iinfo(self.node.out.dtype)
        first, last = self.rounded(low, high, steps)
        return first.clip(info.min, info.max), last.clip(info.min, info.max)


def _times(a: Interval, b: Interval) -> Interval:
    corners = [x * y for x in a for y in b]
    return np.minimum.reduce(corners), np.maximum.reduce(corners)


def _plus(*terms: Interval) -> Interval:
    return sum(low for low, _ in terms), sum(high for _, high in terms)  # type: ignore[return-value]


def _of_gates(frames: Frames, *, tables: bool) -> tuple[Interval, Interval]:
    """The state behind each frame, and the cell state of an LSTM, from all that may be rounded.

    Args:
        frames: All frames.
        tables: Gates are flat beyond an edge, as on the chip; else they are the functions.
    """
    cell = frames.cell
    weights, source = cell.weights[0], cell.bound.input()
    of_input = frames.sums(cell.frames, weights.of_input, 1, source.exponent)
    state_exponent = cell.bound.outputs[1].exponent
    of_state = frames.sums(frames.state, weights.of_state, 2, state_exponent)
    of_input = _plus(of_input, (weights.input_bias,) * 2)
    of_state = _plus(of_state, (weights.state_bias,) * 2)
    sigmoid, tanh = (SIGMOID_EDGE, TANH_EDGE) if tables else (None, None)
    step = _gru if cell.bound.op_type == "GRU" else _lstm
    return step(frames, of_input, of_state, (sigmoid, tanh))


def _part(interval: Interval, start: int, stop: int, size: int) -> Interval:
    return interval[0][:, start * size : stop * size], interval[1][:, start * size : stop * size]


def _gru(
    frames: Frames, of_input: Interval, of_state: Interval, edges: tuple[Edge, Edge]
) -> tuple[Interval, Interval]:
    h, unit = frames.cell.hidden, 2.0**-frames.node.out.exponent
    sums = _plus(of_input, of_state)
    z = frames.gate(_part(sums, 0, 1, h), edge=edges[0], centred=False)
    r = frames.gate(_part(sums, 1, 2, h), edge=edges[0], centred=False)
    index = _plus(_part(of_input, 2, 3, h), _times(r, _part(of_state, 2, 3, h)))
    n = frames.gate(frames.rounded(*index, 3), edge=edges[1], centred=True)
    # z is one gate in both terms: state moves from n towards what it was
    state = frames.state.astype(np.float64)
    corners = [(1 - z_end) * n_end * unit + z_end * state for z_end in z for n_end in n]
    sizes = [np.abs(n_end * unit) + np.abs(state) for n_end in n]
    lost = U * 4 * np.maximum(*sizes)
    low, high = np.minimum.reduce(corners) - lost, np.maximum.reduce(corners) + lost
    stored = frames.store(low, high, 1)
    return stored, stored


def _lstm(
    frames: Frames, of_input: Interval, of_state: Interval, edges: tuple[Edge, Edge]
) -> tuple[Interval, Interval]:
    h, unit = frames.cell.hidden, 2.0**-frames.node.out.exponent
    cell_unit = 2.0 ** -frames.node.outputs[2].exponent
    sums = _plus(of_input, of_state)
    i, o, f = (
        frames.gate(_part(sums, k, k + 1, h), edge=edges[0], centred=False) for k in range(3)
    )
    g = frames.gate(_part(sums, 3, 4, h), edge=edges[1], centred=True)
    assert frames.memory is not None
    kept = _times(f, (frames.memory, frames.memory))
    moved = _plus(kept, _times(_times(i, g), (np.array(cell_unit),) * 2))
    memory = frames.rounded(*moved, 4)
    shown = frames.gate(memory, edge=edges[1], centred=True)
    return frames.store(*_times(_times(o, shown), (np.array(unit),) * 2), 2), memory


def recurrent_range(bound: BoundNode, record: ReferenceRecord) -> list[Range]:
    """What each output of a GRU or LSTM, bound to the reference's inputs, may be.

    An element is allowed what the chip's gates give of it, and what the functions do.
    """
    cell = cell_of(bound, GATES[bound.op_type])
    output = record.values[bound.outputs[0].name]
    if cell.directions != 1:  # a stream has no backward direction
        given = run_node(bound)
        wanted = [record.values.get(o.name, g) for o, g in zip(bound.outputs, given, strict=True)]
        return [Range(g, w, w) for g, w in zip(given, wanted, strict=True)]
    after = output.reshape(-1, cell.hidden)
    start = cell.start(5, 0, bound.outputs[1])
    before = np.concatenate([start[None], after[:-1]])
    memory = record.cells.get(bound.outputs[0].name)
    memory = None if memory is None else memory.reshape(-1, cell.hidden)
    frames = Frames(cell, before, memory)
    given = _run_frames(bound, before, memory)
    of_tables, of_functions = (_of_gates(frames, tables=tables) for tables in (True, False))
    (low, c_low), (high, c_high) = (
        [ends(a[side], b[side]) for a, b in zip(of_tables, of_functions, strict=True)]
        for side, ends in enumerate((np.minimum, np.maximum))
    )
    found = [Range(given[0], low, high, WHY), Range(given[1], low[-1], high[-1], WHY)]
    if bound.op_type == "LSTM":
        found.append(Range(given[2], c_low[-1], c_high[-1], WHY))
    return found


def _run_frames(bound: BoundNode, before: Array, memory: Array | None) -> list[Array]:
    """Outputs of the node, each frame from the state that the reference has before it.

    The last states are those behind the last frame.
    """
    x = bound.input()
    frame = np.zeros((1, *x.shape[1:]), x.dtype)
    states = [before] if memory is None else [before, memory]
    held = [
        Operand(f"state {k}", np.zeros((1, 1, rows.shape[1]), rows.dtype), out.exponents)
        for k, (rows, out) in enumerate(zip(states, bound.outputs[1:], strict=False))
    ]
    inputs = [*bound.inputs, *[None] * 7][:5]
    outputs = tuple(
        replace(out, array=np.zeros((1, *out.shape[1:]) if k == 0 else out.shape, out.dtype))
        for k, out in enumerate(bound.outputs)
    )
    operands = (replace(x, array=frame), *inputs[1:], *held)
    shapes = tuple(None if o is None else o.shape for o in operands)
    alone = replace(bound, inputs=operands, outputs=outputs, shapes=shapes)
    kernel = OPERATORS[bound.op_type].build(alone)
    assert kernel is not None
    found = np.zeros_like(bound.outputs[0].array)
    for t in range(len(before)):
        frame[0] = x.array[t]
        for operand, rows in zip(held, states, strict=True):
            operand.array[0, 0] = rows[t]
        kernel()
        found[t] = outputs[0].array[0]
    return [found, *(out.array for out in outputs[1:])]
