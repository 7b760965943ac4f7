"""Look-up kernels: any function of one int8 or int16 value is a table made at load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel

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

        def clip() -> None:
            source.clip(low, high, out=destination)

        return clip
    narrow = source.dtype.itemsize == destination.dtype.itemsize == 1
    if narrow and source.size % 2 == 0 and source.size >= PAIR_ELEMENTS:
        pairs = np.arange(2**16, dtype=np.uint16).view(np.uint8)
        table = table.view(np.uint8)[pairs].view(np.uint16)
        source, destination = source.reshape(-1), destination.reshape(-1).view(np.uint16)
        indices = source.view(np.uint16)
    else:
        indices = source.view(f"u{source.dtype.itemsize}")

    def look_up() -> None:
        table.take(indices, out=destination, mode="clip")

    return look_up


def _as_clip(dtype: np.dtype[Any], table: Array) -> tuple[Any, Any] | None:
    """Bounds of the clip that *table* is, if it is one."""
    if table.dtype != dtype:
        return None
    values = every_value(dtype)
    low, high = table.min(), table.max()
    if low == limits(dtype)[0] and high == limits(dtype)[1]:
        return None
    return (low, high) if np.array_equal(np.clip(values, low, high), table) else None
