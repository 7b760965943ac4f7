"""Look-up tables: those that a file stores, and those made at load of a function of one value."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.numeric import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.espdl import Array
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, PlacedNode

TABLE_SIZE_S8 = 256
INT16_STEPS = 65536
PAIR_ELEMENTS = 4096  # from here looking up two int8 at a time pays for the larger table


def every_value(dtype: np.dtype[Any]) -> Array:
    """All values of an integer type, in the order of its bits read as unsigned."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(2 ** (8 * dtype.itemsize), dtype=unsigned).view(dtype)


def tabulate(function: Callable[[Array], Array], dtype: np.dtype[Any]) -> Array:
    """The results of *function* for `every_value`."""
    return np.ascontiguousarray(function(every_value(dtype)))


def lookup(source: Array, destination: Array, table: Array) -> Kernel:
    """A kernel that maps each element through *table*.

    Args:
        source: int8 or int16, contiguous.
        destination: Any type, same size, contiguous.
        table: Of the destination's type; indexed by the source's bits read as unsigned.

    Returns:
        The kernel. A table that only clips becomes a clip, and long int8 tensors are looked up
        two elements at a time.
    """
    clipped = _as_clip(source.dtype, table)
    if clipped is not None:
        low, high = clipped
        return partial(source.clip, low, high, out=destination)
    narrow = source.dtype.itemsize == destination.dtype.itemsize == 1
    if narrow and source.size % 2 == 0 and source.size >= PAIR_ELEMENTS:
        pairs = np.arange(2**16, dtype=np.uint16).view(np.uint8)
        table = table.view(np.uint8)[pairs].view(np.uint16)
        source, destination = source.reshape(-1), destination.reshape(-1).view(np.uint16)
        indices = source.view(np.uint16)
    else:
        indices = source.view(f"u{source.dtype.itemsize}")
    return partial(table.take, indices, out=destination, mode="clip")


def _as_clip(dtype: np.dtype[Any], table: Array) -> tuple[Any, Any] | None:
    """Bounds of the clip that *table* is, if it is one."""
    if table.dtype != dtype:
        return None
    values = every_value(dtype)
    low, high = table.min(), table.max()
    if low == limits(dtype)[0] and high == limits(dtype)[1]:
        return None
    return (low, high) if np.array_equal(np.clip(values, low, high), table) else None


def stored_table(bound: BoundNode) -> Array | None:
    """The node's own int8 table, in the order that `lookup` wants; None without one.

    Matches: the modules' ``deserialize``, which makes an int8 node with a table a LUT.
    """
    if bound.input().dtype != np.int8 or "lut" not in bound.node.attributes:
        return None
    return int8_table(bound)


def int8_table(bound: BoundNode) -> Array:
    """A stored table of 256 entries, first that of -128, reordered for `lookup`.

    Matches: ``base::lut_s8``.
    """
    return np.roll(table_entries(bound), 128)


def table_entries(bound: BoundNode) -> Array:
    """The stored table, flat, in the file's order."""
    return bound.constants[bound.text("lut")].reshape(-1)


def table_rules(placed: PlacedNode, *, must: bool = False) -> Iterator[str]:
    """A look-up table of the file; it *must* be there, or only may at int8."""
    name = placed.node.attributes.get("lut")
    if name is None or not (must or placed.width == "S8"):
        if must:
            yield "there is no look-up table"
        return
    stored = placed.graph.initializers.get(placed.text("lut"))
    if stored is None:
        yield f"the look-up table {name!r} is not in the file"
        return
    if stored.info.dtype != placed.output().dtype:
        yield f"the look-up table is {stored.info.dtype}, the output {placed.output().dtype}"
    if stored.info.exponents != placed.output().exponents:
        yield (
            f"the look-up table has exponent {stored.info.exponents}, the output "
            f"{placed.output().exponents}; the chip asserts that they are equal"
        )
    size = stored.info.size
    if placed.width == "S8" and size != TABLE_SIZE_S8:
        yield f"the look-up table has {size} entries, expected {TABLE_SIZE_S8}"
    if placed.width == "S16" and not _is_int16_table(size):
        yield f"the look-up table has {size} entries, expected 2**k + 1"


def _is_int16_table(size: int) -> bool:
    if size < 2:
        return False
    step = INT16_STEPS // (size - 1)
    if step == 1:
        return size >= INT16_STEPS
    return step > 1 and step & (step - 1) == 0 and step * (size - 1) == INT16_STEPS
