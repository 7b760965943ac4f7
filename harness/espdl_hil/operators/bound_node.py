"""A node bound to memory. Everything is decided from it, at load; a kernel only computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.node import NodeProblem, NodeView
from espdl_hil.operators.numeric import rescale_of, scale_of

if TYPE_CHECKING:
    from espdl_hil.espdl import Array, Shape, Tensor
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.s3_accumulator import LaneCheck
    from espdl_hil.targets import Rounding, Target


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


@dataclass(frozen=True)
class BoundNode(NodeView):
    """What a builder is given, and where it leaves what is not a kernel.

    Attributes:
        target: The chip.
        inputs: In order; None for an optional input that is missing.
        outputs: In order, arrays allocated; a missing optional output has scratch memory.
        resets: Called when caches are zeroed.
        lanes: Checks of the S3's 20-bit accumulators.
    """

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
