"""What GRU and LSTM share: integer matrix-vector products and float gates from tables.

Gate sums are int16 at the gate exponent and wrap when biases are added. The products with the
input do not depend on the state, so all frames are multiplied at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators.numeric import quantized, saturated, scale_of, shift_right_round

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array
    from espdl_hil.operators.node import BoundNode, Operand

SIGMOID_EDGE = np.float32(6.3)  # SigmoidLUT and TanhLUT are flat beyond
TANH_EDGE = np.float32(3.5)
INT16 = np.dtype(np.int16)
SUM_STEP = 2**30  # largest product of two int16
SUM_LIMIT = 2**39 - 1  # ACCX and XACC have 40 bits


def gate_table(
    function: Callable[[Array], Array], exponent: int, edge: np.float32, centre: float
) -> Callable[[Array], Array]:
    """*function* of integers at the gate exponent: a float32 table, flat beyond its edge.

    Args:
        function: ``sigmoid32`` or ``tanh32``.
        exponent: Of the gates' integers.
        edge: Real value where the table ends.
        centre: 1 for sigmoid, which mirrors to ``1 - y``; 0 for tanh, which mirrors to ``-y``.

    Matches: ``SigmoidLUT`` and ``TanhLUT``.
    """
    scale = scale_of(exponent)
    last = int(edge / scale) + 1
    values = function(np.arange(last + 1).astype(np.float32) * scale)
    whole = np.float32(centre)

    def gate(index: Array) -> Array:
        found = values[np.minimum(np.abs(index.astype(np.int32)), last)]
        return np.where(index >= 0, found, whole - found)

    return gate


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
        bound: The node.
        gates: Rows of the weights, 3 or 4 times the hidden size.
        hidden: Hidden size.
        directions: 1, or 2 for bidirectional.
        exponent: Of the gates.
        weights: One entry a direction.
    """

    bound: BoundNode
    gates: int
    hidden: int
    directions: int
    exponent: int
    weights: tuple[Weights, ...]

    @property
    def is_float(self) -> bool:
        """Whether the model is not quantized."""
        return self.bound.input().is_float

    @property
    def frames(self) -> Array:
        """The input, (T, inputs)."""
        x = self.bound.input().array
        return x.reshape(-1, x.shape[2])

    def start(self, index: int, direction: int, like: Operand) -> Array:
        """Initial state, (hidden,); zero when the node has no such input."""
        state = self.bound.optional(index)
        if state is None:
            return np.zeros(self.hidden, like.dtype)
        chosen: Array = state.array.reshape(self.directions, self.hidden)[direction]
        return chosen

    def input_sums(self, weights: Weights) -> Array:
        """Products of all frames with the input weights, (T, gates), bias not added."""
        shift = self.exponent - self.bound.input().exponent - self.bound.input(1).exponent
        return self._sums(self.frames, weights.of_input, shift)

    def state_sums(self, weights: Weights, state: Array) -> Array:
        """Products of the state with the recurrent weights, (gates,), bias not added."""
        shift = self.exponent - self.bound.outputs[1].exponent - self.bound.input(2).exponent
        return self._sums(state, weights.of_state, shift)

    def _sums(self, rows: Array, weights: Array, shift: int) -> Array:
        """Products of rows (..., n) with weights (gates, n), int16 at the gate exponent.

        C multiplies the sum as a float32. The vector kernels shift the 40-bit sum; they run when
        a row of weights fills whole registers and nothing is shifted left, which W and R decide
        each for itself.

        Matches: ``base::dotprod``: ``dl_*_dotprod_i8k8o16`` where n is a multiple of 16,
        ``dl_*_dotprod_i16k16o16`` of 8, and the shift 0 or more; else ``dotprod_c``.
        """
        products = rows.astype(weights.dtype) @ weights.T
        if self.is_float:
            return products
        terms, dtype, rounding = weights.shape[1], self.bound.input().dtype, self.bound.rounding
        if not self.bound.target.simd or terms % block_size(dtype) or shift < 0:
            return quantized(products.astype(np.float32) * scale_of(-shift), rounding, INT16)
        if dtype == INT16 and terms * SUM_STEP > SUM_LIMIT:
            products = _saturating(rows, weights)
        return saturated(shift_right_round(products.astype(np.int64), shift, rounding), INT16)


def _saturating(rows: Array, weights: Array) -> Array:
    """The 40-bit sums of long rows: a register of products is added, then the sum saturates."""
    pairs = (*weights.shape[:1], -1, block_size(INT16))
    steps = np.einsum(
        "...bk,gbk->...gb",
        rows.astype(np.float64).reshape(*rows.shape[:-1], -1, pairs[2]),
        weights.reshape(pairs),
    )
    total = np.zeros(steps.shape[:-1])
    for i in range(steps.shape[-1]):
        total = np.clip(total + steps[..., i], -SUM_LIMIT - 1, SUM_LIMIT)
    return total


def cell_of(bound: BoundNode, gates: int) -> Cell:
    """Read a GRU of 3 *gates*, or an LSTM of 4."""
    x, w, r = bound.input(), bound.input(1), bound.input(2)
    hidden = bound.integer("hidden_size")
    directions = 2 if bound.text("direction", "forward") == "bidirectional" else 1
    rows = gates * hidden
    kind = np.float32 if x.is_float else np.float64
    bias = bound.optional(3)
    biases = np.zeros(2 * directions * rows, np.int16) if bias is None else bias.array
    weights = tuple(
        Weights(of_input.astype(kind), of_state.astype(kind), *pair)
        for of_input, of_state, pair in zip(
            w.array, r.array, biases.reshape(directions, 2, rows), strict=True
        )
    )
    exponent = bound.integer("gate_exponent", -8)
    return Cell(bound, rows, hidden, directions, exponent, weights)
