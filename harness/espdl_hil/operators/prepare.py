"""One node being prepared. Everything is decided here, at load; a kernel only computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from espdl_hil.operators.node_view import NodeProblem, NodeView
from espdl_hil.operators.numeric import rescale_of, scale_of

if TYPE_CHECKING:
    from espdl_hil.espdl import Array, Shape, Tensor
    from espdl_hil.operators.s3_accumulator import LaneCheck
    from espdl_hil.targets import Rounding, Target

Kernel: TypeAlias = Callable[[], None]


@dataclass
class Operand:
    """A tensor with its place in memory.

    Attributes:
        name: Name in the graph.
        array: The elements, in the file's layout. Constant or overwritten at every step; its
            address never changes once the plan is built, so kernels and views may hold it.
        exponents: ``real = q * 2**exponent``; one, or one per output channel.
        constant: Set when the file stores the tensor.
    """

    name: str
    array: Array
    exponents: tuple[int, ...] = (0,)
    constant: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """Shape as inferred from the graph's inputs."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.array.dtype

    @property
    def is_float(self) -> bool:
        """Whether the tensor is not quantized."""
        return self.array.dtype == np.float32

    @property
    def exponent(self) -> int:
        """The exponent of a tensor that is quantized as a whole."""
        if len(self.exponents) != 1:
            raise NodeProblem(f"{self.name} has an exponent per channel")
        return self.exponents[0]

    @property
    def scale(self) -> np.float32:
        """Value of one LSB."""
        return scale_of(self.exponent)

    @property
    def rescale(self) -> np.float32:
        """LSBs in one unit."""
        return rescale_of(self.exponent)


@dataclass
class Op:
    """What a builder is given, and where it leaves what is not a kernel.

    Attributes:
        view: The node with typed access to its attributes.
        target: The chip.
        inputs: In order; None for an optional input that is missing.
        outputs: In order, arrays allocated; a missing optional output has scratch memory.
        resets: Called by ``Session.reset``.
        lanes: Checks of the S3's 20-bit accumulators.
    """

    view: NodeView
    target: Target
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]
    resets: list[Kernel] = field(default_factory=list)
    lanes: list[LaneCheck] = field(default_factory=list)

    @property
    def rounding(self) -> Rounding:
        """What an exact half becomes on the target."""
        return self.target.rounding

    @property
    def op_type(self) -> str:
        """Operator, ONNX spelling."""
        return self.view.node.op_type

    @property
    def out(self) -> Operand:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int = 0) -> Operand:
        """A required input.

        Raises:
            NodeProblem: It is missing.
        """
        operand = self.optional(index)
        if operand is None:
            raise NodeProblem(f"input {index} is missing")
        return operand

    def optional(self, index: int) -> Operand | None:
        """An input that may be missing."""
        return self.inputs[index] if index < len(self.inputs) else None


Builder: TypeAlias = Callable[[Op], Kernel | None]
"""Prepares a node. Returns None when the output is a view of an input and nothing runs."""


def in_order(kernels: list[Kernel]) -> Kernel:
    """A kernel that runs others."""
    if len(kernels) == 1:
        return kernels[0]

    def run() -> None:
        for kernel in kernels:
            kernel()

    return run
