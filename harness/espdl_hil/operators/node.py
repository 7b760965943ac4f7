"""A node in three stages: seen with its shapes, placed on a target, bound to memory.

Knows names and types, not operators.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from espdl_hil.operators.numeric import scale_of
from espdl_hil.operators.problem import NodeProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.espdl.graph import Array, Graph, Node, Shape, Tensor, TensorInfo
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.saturation import LaneLog
    from espdl_hil.targets import Rounding, Target


INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1  # ESP-DL keeps integers in int
MAX_INTEGERS = 4096  # of one list; many nodes can read one constant, and each would copy it


@dataclass(frozen=True)
class NodeView:
    """A node with what its shapes depend on.

    Methods raise `NodeProblem` for an input, a constant or an attribute that is missing (attributes
    only without a default), of another type, or out of range.

    Attributes:
        node: The node; a list may stand for a tuple among its attributes, None for a missing one.
        shapes: Shape of each input; None for an optional input that is missing.
        constants: Constant tensors by name, any shape.
    """

    node: Node
    shapes: Sequence[Shape | None]
    constants: Mapping[str, Array]

    @property
    def op_type(self) -> str:
        """Operator, ONNX spelling."""
        return self.node.op_type

    @property
    def shape(self) -> Shape:
        """Shape of the first input."""
        return self.shape_of(0)

    def shape_of(self, index: int) -> Shape:
        """Shape of an input that is present."""
        shape = self.shapes[index] if index < len(self.shapes) else None
        if shape is None:
            raise NodeProblem(f"input {index} is missing")
        return shape

    def has(self, index: int) -> bool:
        """Whether the input is present."""
        return index < len(self.shapes) and self.shapes[index] is not None

    def _attribute(self, name: str, default: object) -> object:
        value = self.node.attributes.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute, within int32."""
        value = self._attribute(name, default)
        if not _is_int32(value):
            raise NodeProblem(f"attribute {name} should be an int32, found {value!r}")
        return value

    def integers(self, name: str, default: Shape | None = None) -> Shape:
        """A list of integers, each within int32."""
        value = self._attribute(name, default)
        if isinstance(value, tuple | list) and all(map(_is_int32, value)):
            return tuple(value)
        raise NodeProblem(f"attribute {name} should be a list of int32, found {value!r}")

    def number(self, name: str, default: float | None = None) -> float:
        """A number attribute."""
        value = self._attribute(name, default)
        if not isinstance(value, float):
            raise NodeProblem(f"attribute {name} should be a number, found {value!r}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text attribute."""
        value = self._attribute(name, default)
        if not isinstance(value, str):
            raise NodeProblem(f"attribute {name} should be a text, found {value!r}")
        return value

    def constant(self, index: int) -> Array | None:
        """Elements of a constant input, one-dimensional; None when it is missing."""
        if not self.has(index):
            return None
        name = self.node.inputs[index]
        values = self.constants.get(name)
        if values is None:
            raise NodeProblem(
                f"input {index} ({name!r}) must be a constant, ESP-DL reads it at load"
            )
        return values.reshape(-1)

    def constant_integers(self, index: int) -> Shape | None:
        """Elements of a constant int64 input, at most `MAX_INTEGERS`; None when it is missing."""
        values = self.constant(index)
        if values is None:
            return None
        if values.dtype != "<i8":
            raise NodeProblem(f"input {index} is {values.dtype}, ESP-DL reads int64")
        if values.size > MAX_INTEGERS:
            raise NodeProblem(f"input {index} lists {values.size} numbers, at most {MAX_INTEGERS}")
        integers = tuple(values.tolist())
        if not all(map(_is_int32, integers)):
            raise NodeProblem(f"input {index} holds {integers}, the chip keeps int32")
        return integers

    def axis(self, value: int, rank: int) -> int:
        """*value*, an axis of *rank* dimensions, counted from the first."""
        if not -rank <= value < rank:
            raise NodeProblem(f"axis {value} is outside the {rank} dimensions")
        return value % rank


def _is_int32(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and INT32_MIN <= value <= INT32_MAX


@dataclass(frozen=True)
class PlacedNode(NodeView):
    """A node in its place, a graph on a target: what rules are given.

    Attributes:
        graph: The graph around the node.
        target: The chip.
        width: The node's quant_type: ``S8``, ``S16`` or ``F32``.
        results: Inferred shapes of the outputs.
    """

    graph: Graph
    target: Target
    width: str
    results: tuple[Shape, ...]

    @property
    def quantized(self) -> bool:
        """Whether the node computes on integers."""
        return self.width != "F32"

    def info(self, index: int) -> TensorInfo:
        """What the file says about an input that is present."""
        return self.graph.info(self.node.inputs[index])

    def output(self, index: int = 0) -> TensorInfo:
        """What the file says about an output."""
        return self.graph.value_info[self.node.outputs[index]]

    def stored(self, index: int) -> Tensor | None:
        """The constant behind an input; None when it is missing or computed."""
        if not self.has(index):
            return None
        return self.graph.initializers.get(self.node.inputs[index])


@dataclass
class Operand:
    """A tensor with its place in memory.

    Attributes:
        name: Name in the graph.
        array: The elements, in the file's layout. Constant or overwritten at every step; its
            address never changes once the plan is built, so kernels and views may hold it.
        exponents: ``real = q * 2**exponent``; one, or one per output channel.
        constant: Set when the file stores the tensor.
        positive: Set by a node whose outputs are never negative, for those that read it.
    """

    name: str
    array: Array
    exponents: tuple[int, ...] = (0,)
    constant: Tensor | None = None
    positive: bool = False

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
        """Value of one LSB; 1 for a tensor that is not quantized."""
        return scale_of(0 if self.is_float else self.exponent)

    @property
    def rescale(self) -> np.float32:
        """LSBs in one unit; 1 for a tensor that is not quantized."""
        return scale_of(0 if self.is_float else -self.exponent)


def allocated(info: TensorInfo, shape: Shape) -> Operand:
    """New memory for a tensor, all zero."""
    return Operand(info.name, np.zeros(shape, info.dtype), info.exponents)


def stored_operands(graph: Graph) -> dict[str, Operand]:
    """The constants of a graph by name."""
    return {
        name: Operand(name, tensor.array, tensor.info.exponents, tensor)
        for name, tensor in graph.initializers.items()
    }


@dataclass(frozen=True)
class BoundNode(NodeView):
    """What a builder is given, and where it leaves what is not a kernel.

    Attributes:
        target: The chip.
        inputs: In order; None for an optional input that is missing.
        outputs: In order, arrays allocated; a missing optional output has scratch memory.
        resets: Called when caches are zeroed.
        uniform: Compute it as a node of any size would be, exactly; see ``Operator.by_size``.
        lanes: What saturated, one log a node whose accumulators some input could fill.
    """

    target: Target
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]
    uniform: bool = False
    resets: list[Kernel] = field(default_factory=list)
    lanes: list[LaneLog] = field(default_factory=list)

    @property
    def rounding(self) -> Rounding:
        """What an exact half becomes on the target."""
        return self.target.rounding

    @property
    def out(self) -> Operand:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int = 0) -> Operand:
        """A required input."""
        operand = self.optional(index)
        if operand is None:
            raise NodeProblem(f"input {index} is missing")
        return operand

    def optional(self, index: int) -> Operand | None:
        """An input that may be missing."""
        return self.inputs[index] if index < len(self.inputs) else None


def bind(
    node: Node,
    graph: Graph,
    constants: Mapping[str, Array],
    target: Target,
    shapes: Mapping[str, Shape],
    operands: Mapping[str, Operand],
) -> BoundNode:
    """Bind a node of *graph* to its inputs among *operands*, and to new memory for its outputs."""
    return BoundNode(
        node=node,
        shapes=tuple(shapes.get(name) for name in node.inputs),
        constants=constants,
        target=target,
        inputs=tuple(operands.get(name) for name in node.inputs),
        outputs=tuple(allocated(graph.value_info[name], shapes[name]) for name in node.outputs),
    )
