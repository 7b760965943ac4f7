"""Arrays in JSON: type, shape and compressed bytes. Knows NumPy, not what the numbers mean."""

from __future__ import annotations

import base64
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DTYPES = ("|i1", "<i2", "<i4", "<u2", "<f4")
MAX_BYTES = 1 << 20  # of one array, expanded


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON keeps it.

    Args:
        array: Any shape, of a type in ``DTYPES``, little endian.

    >>> pack(np.zeros((2, 3), np.int16))["shape"]
    [2, 3]
    """
    dtype = array.dtype.newbyteorder("<").str
    assert dtype in DTYPES, dtype
    data = zlib.compress(np.ascontiguousarray(array, dtype).tobytes(), 9)
    return {"dtype": dtype, "shape": list(array.shape), "zlib": base64.b64encode(data).decode()}


def unpack(packed: Mapping[str, Any]) -> NDArray[Any]:
    """Return the array that ``pack`` was given.

    Raises:
        ValueError: it is none: another type, other bytes than its shape needs, or too many.

    >>> unpack(pack(np.arange(6, dtype=np.int8).reshape(2, 3)))[1]
    array([3, 4, 5], dtype=int8)
    """
    if packed["dtype"] not in DTYPES:
        raise ValueError(f"dtype {packed['dtype']!r} is none of {', '.join(DTYPES)}")
    dtype, shape = np.dtype(packed["dtype"]), tuple(packed["shape"])
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes, at most {MAX_BYTES} are allowed")
    try:
        data = zlib.decompressobj().decompress(
            base64.b64decode(packed["zlib"], validate=True), size + 1
        )
    except zlib.error as error:
        raise ValueError(f"not compressed by zlib: {error}") from None
    if len(data) != size:
        raise ValueError(f"not the {size} bytes of shape {list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape)


def is_packed(value: Any) -> bool:
    """Whether a JSON value is an array that ``unpack`` takes."""
    try:
        unpack(value)
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return True
