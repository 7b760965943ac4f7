"""How far float32 steps may move a result: one derived bound an operator, at the actual values.

The reference computes in float64 and rounds once. A chip computes some operators in float32: each
of its operations is off by at most ``U`` of its result, and the sum of these is less than half an
LSB nearly always. So an element may differ by 1 LSB where the real value is that close to the
middle between two integers, and nowhere else. What is not listed here is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from espdl_hil.operators import OPERATORS
from espdl_hil.operators.elementwise import vector_loop
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.node import BoundNode, Operand

U = 2.0**-24  # of a float32 result, which is rounded to the nearest
EXACT_FLOAT = 2**24  # integers below are float32
LIBRARY = 2  # of U: expf, logf and their kin, in newlib's and in a desktop's library
NEWTON_STEP = 1e-5  # ESP-DL's square root stops at a step below
SMALLEST = 2.0**-126  # float32 loses bits below


@dataclass(frozen=True)
class Range:
    """What one output of a node may be.

    Attributes:
        given: What the interpreter computes from the reference's inputs.
        low: Smallest allowed, of the size of *given*.
        high: Largest.
        why: What allows for a difference; empty if nothing does.
        excused: Elements that the chip's own arithmetic is known to give otherwise.
    """

    given: Array
    low: Array
    high: Array
    why: str = ""
    excused: int = 0


def run_node(bound: BoundNode) -> list[Array]:
    """Run a node once; returns copies of its outputs."""
    kernel = OPERATORS[bound.op_type].build(bound)
    if kernel is not None:
        kernel()
    return [operand.array.copy() for operand in bound.outputs]


@dataclass(frozen=True)
class Step:
    """One node on the reference's own inputs.

    Attributes:
        node: Bound to them.
        index: Number of the output.
        real: What the output is before it is rounded, float64: LSB, or the value of a float output.
    """

    node: BoundNode
    index: int
    real: Array

    @property
    def source(self) -> Operand:
        """The first input."""
        return self.node.input()

    @property
    def out(self) -> Operand:
        """The output."""
        return self.node.outputs[self.index]

    def integers(self, index: int = 0) -> Array:
        """An input, int64."""
        return self.node.input(index).array.astype(np.int64)

    @property
    def length(self) -> int:
        """Of the axis that the node computes along."""
        return self.source.shape[self.node.axis(self.node.integer("axis", -1), self.real.ndim)]

    @property
    def reduced(self) -> int:
        """Inputs of each output."""
        return self.source.array.size // max(self.out.array.size, 1)

    def steps(self, count: float) -> Array:
        """What *count* operations on the whole result may move it, and rounding as the target does.

        A target that rounds half up adds 0.5 in float32, which is one more operation.
        """
        half_up = self.node.rounding is Rounding.HALF_UP
        return U * (count * np.abs(self.real) + half_up * (np.abs(self.real) + 0.5))


Bound: TypeAlias = Callable[[Step], "Array"]
"""LSB (or units of a float output) by which float32 may move each element; not negative."""


def _mean(step: Step) -> Array:
    """Sum, product with the reciprocal, reciprocal; of 2**n small integers all are exact."""
    node = step.node
    if node.op_type == "AveragePool":
        count = int(np.prod(node.integers("kernel_shape")))
    else:
        count = step.reduced
    sums = step.real * count * 2.0 ** (step.out.exponent - step.source.exponent)
    power_of_two = count & (count - 1) == 0
    exact = power_of_two & (np.abs(sums) * 2 + count < EXACT_FLOAT)
    return np.where(exact, 0.0, step.steps(3))


def _product(step: Step) -> Array:
    """Mul: C rounds an int16 product to float32; vector kernels and int8 are exact."""
    a, b = step.node.input(), step.node.input(1)
    if step.node.target.simd and vector_loop(a.shape, b.shape, step.out.dtype):
        return np.zeros(step.real.shape)
    products = step.real * 2.0 ** (step.out.exponent - a.exponent - b.exponent)
    return np.where(np.abs(products) < EXACT_FLOAT / 2, 0.0, step.steps(1))


def _quantized(step: Step) -> Array:
    """QuantizeLinear: its input is a float32 of what the reference rounds; the scale is exact."""
    return step.steps(1)


def _quotient(step: Step) -> Array:
    """Div: two roundings, one more where a reciprocal multiplies."""
    return step.steps(3)


def _function(step: Step) -> Array:
    """Sigmoid and its kin without a table: the argument is exact, the function the library's.

    ``1 / (1 + expf(-x))`` and ``2 * sigmoid(2x) - 1``: a few operations on values up to 1, which
    count as they are and not by the result.
    """
    unit = 2.0**-step.out.exponent
    argument = np.abs(np.ldexp(step.integers().astype(np.float64), step.source.exponent))
    scale = np.maximum(1.0, argument) if step.node.op_type in ("Swish", "HardSwish") else 1.0
    return step.steps(LIBRARY + 2) + (LIBRARY + 3) * U * unit * scale


def _reduced(step: Step) -> Array:
    """Sums of rounded terms in index order: ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceProd."""
    count = step.reduced + LIBRARY + 4
    unit = 2.0**-step.out.exponent
    newton = NEWTON_STEP**2 * 2 * unit / np.maximum(np.abs(step.real / unit), NEWTON_STEP)
    return step.steps(count) + count * U * unit + newton


def _softmax(step: Step) -> Array:
    """Exponentials, their sum in index order, a quotient; of float32 results."""
    return (2 * LIBRARY + step.length + 2) * U * np.abs(step.real) + SMALLEST


def _log_softmax(step: Step) -> Array:
    """``x - max - log(sum)``: what is lost in the sum and the logarithm, and in the difference."""
    largest = np.abs(np.ldexp(step.integers().astype(np.float64), step.source.exponent)).max()
    lost = LIBRARY * (largest + np.log(step.length)) + 2 * LIBRARY + step.length + 2
    moved: Array = U * (lost + 2 * np.abs(step.real))
    return moved


def _layer_norm(step: Step) -> Array:
    """``(x - mean) / sqrt(variance + epsilon) * gain + bias``, Newton's square root.

    Mean and differences, each within U of the mean; a sum of n squares in index order; the root;
    a product with each of scale, root and gain; the bias.
    """
    node = step.node
    axis = node.axis(node.integer("axis", -1), len(step.source.shape))
    count = int(np.prod(step.source.shape[axis:]))
    x = np.ldexp(step.integers().reshape(-1, count).astype(np.float64), step.source.exponent)
    mean = x.mean(1, keepdims=True)
    variance = x.var(1, keepdims=True) + node.number("epsilon", 1e-5)
    root = np.sqrt(variance)
    gain, bias = (_row(node.optional(index), count, 1 - index) for index in (1, 2))
    normal = np.abs((x - mean) / root * gain)
    of_mean = 3 * U * np.abs(mean) / root
    of_root = (count / 2 + 4) * U + NEWTON_STEP**2 * 2 / variance + count * of_mean**2
    lost = normal * (of_root + 5 * U) + of_mean * np.abs(gain) + U * np.abs(bias)
    moved: Array = step.steps(1) + np.ldexp(lost, -step.out.exponent).reshape(step.real.shape)
    return moved


def _row(operand: Operand | None, count: int, default: float) -> Array:
    """Real values of a gain or bias."""
    if operand is None:
        return np.full(count, default, np.float64)
    real = operand.array.reshape(-1).astype(np.float64)
    return real if operand.is_float else np.ldexp(real, operand.exponent)


def _rms_norm(step: Step) -> Array:
    """A sum of n squares, rounded once; root, reciprocal and three products."""
    return step.steps(12)


def _lp_norm(step: Step) -> Array:
    """As RMSNormalization; at p = 1 a sum of n magnitudes in index order."""
    return step.steps(step.length + 12)


def _interpolated(step: Step) -> Array:
    """Resize: weights of two or four neighbours; what each loses counts by the largest."""
    if step.node.text("mode", "nearest") == "nearest":
        return np.zeros(step.real.shape)
    unit = 2.0 ** (step.source.exponent - step.out.exponent)
    largest = np.abs(step.integers()).max(initial=0) * unit
    moved: Array = step.steps(2) + 16 * U * (largest + 1)
    return moved


BOUNDS: dict[str, Bound] = {
    "AveragePool": _mean,
    "Div": _quotient,
    "GlobalAveragePool": _mean,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_norm,
    "Mod": _quotient,
    "Mul": _product,
    "Pow": _quotient,
    "QuantizeLinear": _quantized,
    "RMSNormalization": _rms_norm,
    "ReduceL2": _reduced,
    "ReduceLogSum": _reduced,
    "ReduceLogSumExp": _reduced,
    "ReduceMean": _mean,
    "ReduceProd": _reduced,
    "Resize": _interpolated,
    "Softmax": _softmax,
    **dict.fromkeys(("Elu", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu"), _function),
    **dict.fromkeys(("Log", "Sigmoid", "Sqrt", "Swish", "Tanh"), _function),
}
FLOORS = ("PRelu",)  # int16 kernels shift the product and round down
ROUNDS_FLOATS = frozenset((*BOUNDS, *FLOORS))
"""Operators that a chip computes otherwise than in exact integers: rests are kept of them."""
