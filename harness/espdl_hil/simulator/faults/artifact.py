"""Faults of the artifact: constants that are not those of the file, under an unchanged hash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.errors import ConfigError
from espdl_hil.espdl import load_graph, pack_filter, patch_initializer, unpack_filter
from espdl_hil.simulator.faults.base import LoadFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Graph
    from espdl_hil.simulator.faults.base import Array

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SIGN_BITS_TRIED = 8  # of each filter


@dataclass(frozen=True)
class ConstantFault(LoadFault):
    """A constant that holds other elements.

    Attributes:
        tensor: Name of the constant.
    """

    tensor: str

    def fits(self, graph: Graph) -> bool:
        return self.tensor in graph.initializers

    def edited(self, graph: Graph, target: str) -> Graph:
        return _with_raw(graph, self.tensor, self.changed(graph.initializers[self.tensor].raw))

    def changed(self, raw: Array) -> Array:
        """The elements in stored order, changed; *raw* is not written to."""
        raise NotImplementedError


@dataclass(frozen=True)
class WeightBit(ConstantFault):
    """One bit of a constant flips after the model was hashed.

    Attributes:
        element: Which element, in stored order.
        bit: Which bit of it.
    """

    element: int
    bit: int = 0

    def changed(self, raw: Array) -> Array:
        return _flipped(raw, self.tensor, self.element, 1, 1 << self.bit)


@dataclass(frozen=True)
class WeightWord(ConstantFault):
    """A run of elements reads as 0x00 or 0xff all over.

    Attributes:
        element: The first one, in stored order.
        count: How many.
        ones: All ones rather than all zeros.
    """

    element: int
    count: int
    ones: bool = False

    def changed(self, raw: Array) -> Array:
        other = raw.copy()
        other[self.element : self.element + self.count] = -int(self.ones)
        return other


@dataclass(frozen=True)
class BiasShifted(ConstantFault):
    """A bias has another exponent than its node uses.

    Attributes:
        by: Bits to the left; negative is to the right, rounding down.
    """

    by: int

    def changed(self, raw: Array) -> Array:
        other: Array = raw << self.by if self.by > 0 else raw >> -self.by
        return other


@dataclass(frozen=True)
class BiasLeftOut(ConstantFault):
    """A bias is not added."""

    def changed(self, raw: Array) -> Array:
        return np.zeros_like(raw)


@dataclass(frozen=True)
class PackedForC(ConstantFault):
    """A filter lies in the order of the portable kernels."""

    def edited(self, graph: Graph, target: str) -> Graph:
        node = next(n for n in graph.nodes if self.tensor in n.inputs)
        stored = graph.initializers[self.tensor]
        depthwise = node.attributes.get("group", 1) != 1
        taps = unpack_filter(stored.raw, stored.info.shape, target, depthwise=depthwise)
        return _with_raw(graph, self.tensor, pack_filter(taps, "c", depthwise=depthwise))


@dataclass(frozen=True)
class TableFault(LoadFault):
    """A node's look-up table that holds other entries.

    Attributes:
        node: Name of the node.
    """

    node: str

    def fits(self, graph: Graph) -> bool:
        return self._table(graph) != ""

    def edited(self, graph: Graph, target: str) -> Graph:
        name = self._table(graph)
        return _with_raw(graph, name, self.changed(graph.initializers[name].raw))

    def changed(self, raw: Array) -> Array:
        """The entries, changed; *raw* is not written to."""
        raise NotImplementedError

    def _table(self, graph: Graph) -> str:
        tables = (node.attributes.get("lut") for node in graph.nodes if node.name == self.node)
        return next((table for table in tables if isinstance(table, str)), "")


@dataclass(frozen=True)
class LutEntry(TableFault):
    """Entries of a node's look-up table are wrong.

    Attributes:
        index: The first one, in stored order.
        xor: Bits that are flipped in it.
        count: How many entries.
    """

    index: int
    xor: int = 1
    count: int = 1

    def changed(self, raw: Array) -> Array:
        return _flipped(raw, self.node, self.index, self.count, self.xor)


@dataclass(frozen=True)
class LutBeside(TableFault):
    """A table is read beside the entry.

    Attributes:
        by: How many entries.
    """

    by: int = 1

    def changed(self, raw: Array) -> Array:
        return np.roll(raw, self.by)


def flip_weight(data: bytes, changes: Callable[[bytes], bool]) -> bytes:
    """Flip the sign bit of the first weight whose flipping matters.

    Args:
        data: A plain EDL file.
        changes: Whether a file gives other outputs than *data*.

    Returns:
        The changed file, of the same length.

    Raises:
        ConfigError: No weight that was tried changes any output.
    """
    graph = load_graph(data)
    for name in (node.inputs[1] for node in graph.nodes if node.op_type in WEIGHTED):
        tensor = graph.initializers.get(name)
        if tensor is None or tensor.info.dtype.kind != "i":
            continue
        sign = 1 << (8 * tensor.info.dtype.itemsize - 1)
        for element in range(min(tensor.info.size, SIGN_BITS_TRIED)):
            changed = patch_initializer(data, name, element, sign)
            if changes(changed):
                return changed
    raise ConfigError("no weight of this model changes its outputs")


def _flipped(raw: Array, name: str, first: int, count: int, xor: int) -> Array:
    width = raw.dtype.itemsize
    if not 0 <= first <= raw.size - count or not 0 <= xor < 256**width:
        raise ConfigError(
            f"element {first} or bits {xor:#x} are out of range: {name!r} has "
            f"{raw.size} elements of {width} bytes"
        )
    changed = raw.copy()
    unsigned = changed.view(f"u{width}")
    unsigned[first : first + count] ^= unsigned.dtype.type(xor)
    return changed


def _with_raw(graph: Graph, name: str, raw: Array) -> Graph:
    """The graph with other elements of a constant."""
    tensor = replace(graph.initializers[name], raw=raw)
    return replace(graph, initializers={**graph.initializers, name: tensor})
