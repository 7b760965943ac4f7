"""Typed access to what a node says. Knows names and types, not operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.espdl.graph import Array, Node, Shape


INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1  # ESP-DL keeps integers in int


class NodeProblem(Exception):  # noqa: N818 - a finding; `check_graph` turns it into an error
    """Why ESP-DL cannot run a node; collected, so that every node is named at once."""


@dataclass(frozen=True)
class NodeView:
    """A node with what its shapes depend on.

    Attributes:
        node: The node; a list may stand for a tuple among its attributes, None for a missing one.
        shapes: Shape of each input; None for an optional input that is missing.
        constants: Constant tensors by name, any shape.
    """

    node: Node
    shapes: Sequence[Shape | None]
    constants: Mapping[str, Array]

    @property
    def shape(self) -> Shape:
        """Shape of the first input."""
        return self.shape_of(0)

    def shape_of(self, index: int) -> Shape:
        """Shape of an input.

        Raises:
            NodeProblem: The node has no such input.
        """
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
        """An integer attribute.

        Raises:
            NodeProblem: It is missing and has no default, or is of another type.
        """
        value = self._attribute(name, default)
        if not isinstance(value, int) or not INT32_MIN <= value <= INT32_MAX:
            raise NodeProblem(f"attribute {name} should be an int32, found {value!r}")
        return value

    def integers(self, name: str, default: Shape | None = None) -> Shape:
        """A list of integers.

        Raises:
            NodeProblem: It is missing and has no default, or is of another type.
        """
        value = self._attribute(name, default)
        if isinstance(value, tuple | list):
            integers = tuple(v for v in value if isinstance(v, int))
            if len(integers) == len(value) and _fit_int32(integers):
                return integers
        raise NodeProblem(f"attribute {name} should be a list of int32, found {value!r}")

    def number(self, name: str, default: float | None = None) -> float:
        """A number attribute.

        Raises:
            NodeProblem: It is missing and has no default, or is of another type.
        """
        value = self._attribute(name, default)
        if not isinstance(value, float):
            raise NodeProblem(f"attribute {name} should be a number, found {value!r}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text attribute.

        Raises:
            NodeProblem: It is missing and has no default, or is of another type.
        """
        value = self._attribute(name, default)
        if not isinstance(value, str):
            raise NodeProblem(f"attribute {name} should be a text, found {value!r}")
        return value

    def constant(self, index: int) -> Array | None:
        """Elements of a constant input, one-dimensional; None when it is missing.

        Raises:
            NodeProblem: The input is computed by the graph; ESP-DL reads it at load.
        """
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
        """Elements of a constant int64 input; None when it is missing.

        Raises:
            NodeProblem: The input is computed by the graph or is not int64.
        """
        values = self.constant(index)
        if values is None:
            return None
        if values.dtype != "<i8":
            raise NodeProblem(f"input {index} is {values.dtype}, ESP-DL reads int64")
        integers = tuple(values.tolist())
        if not _fit_int32(integers):
            raise NodeProblem(f"input {index} holds {integers}, the chip keeps int32")
        return integers

    def axis(self, value: int, rank: int) -> int:
        """A non-negative axis.

        Raises:
            NodeProblem: *value* is outside the *rank* dimensions.
        """
        if not -rank <= value < rank:
            raise NodeProblem(f"axis {value} is outside the {rank} dimensions")
        return value % rank


def _fit_int32(values: Shape) -> bool:
    return all(INT32_MIN <= value <= INT32_MAX for value in values)
