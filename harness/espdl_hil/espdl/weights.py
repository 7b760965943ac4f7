"""Filters: from the order in which a target stores them to (N, H, W, C), and back.

``blk`` channels make one SIMD block: 16 for int8, 8 for int16. With ``na = N // blk * blk``:

==================  ==========================  ====================
filter              first ``na`` channels       the other channels
==================  ==========================  ====================
S3/P4, group 1      ``[N/blk][H][W][C][blk]``   ``[N-na][H][W][C]``
S3/P4, depthwise    ``[N/blk][H][W][blk]``      ``[H][W][N-na]``
``c``, group 1      ``[N][H][W][C]``
``c``, depthwise    ``[H][W][N]``
==================  ==========================  ====================

The stored dims are cosmetic: ``(H, W, C, N)``, depthwise ``(H, W, N, 1)``, and without ``H`` for
one spatial axis. A Gemm filter is a 1 x 1 convolution's; the constant matrices of a MatMul are
each packed like one, and keep the shape ``(..., C, N)``. A ConvTranspose is stored as InsertZeros
and Conv. GRU and LSTM weights are not packed.

Matches: ``ResetParamLayoutPattern`` of esp-ppq; the filter walk of ``dl_base_conv2d.cpp`` and
``dl_base_depthwise_conv2d.cpp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from espdl_hil.espdl.graph import Array, Shape

VECTOR_BYTES = 16  # one SIMD register of the S3 and the P4


def block_size(dtype: np.dtype[Any]) -> int:
    """Channels in one SIMD block: 16 for int8, 8 for int16."""
    return VECTOR_BYTES // dtype.itemsize


def filter_shape(stored: Shape, *, depthwise: bool) -> Shape:
    """Logical shape ``(N, H, W, C)`` of a filter with *stored* dims.

    Args:
        stored: ``(H, W, C, N)`` or ``(W, C, N)``; depthwise ``(H, W, N, 1)`` or ``(W, N, 1)``.
        depthwise: The node's group is its channel count and not 1.

    Returns:
        ``(N, H, W, C)``; ``H`` is 1 for one spatial axis, ``C`` is 1 for depthwise.

    Raises:
        ValueError: *stored* is not of three or four dimensions, or is no depthwise filter.
    """
    if len(stored) not in (3, 4) or (depthwise and stored[-1] != 1):
        raise ValueError(f"{stored} is not the shape of a {'depthwise ' * depthwise}filter")
    *spatial, c, n = stored
    height, width = spatial if len(spatial) == 2 else (1, spatial[0])
    return (c, height, width, 1) if depthwise else (n, height, width, c)


def unpack_filter(raw: Array, stored: Shape, target: str, *, depthwise: bool = False) -> Array:
    """Filter of a Conv or Gemm in logical order.

    Args:
        raw: Elements as stored, shape ``(..., H * W * C * N)``, int8 or int16; leading axes
            hold several filters.
        stored: The dims of one filter in the file, see `filter_shape`.
        target: Name in `TARGETS`.
        depthwise: The node's group is its channel count and not 1.

    Returns:
        ``(..., N, H, W, C)``, contiguous, same dtype.

    Raises:
        ValueError: The dims are not those of a filter.
    """
    n, h, w, c = filter_shape(stored, depthwise=depthwise)
    many, (blk, whole) = raw.shape[:-1], _blocks(n, raw.dtype, target)
    aligned = blk * whole
    cut = aligned * h * w * c
    out = np.empty((*many, n, h, w, c), raw.dtype)
    blocks = raw[..., :cut].reshape(*many, whole, h, w, c, blk)
    out[..., :aligned, :, :, :] = np.moveaxis(blocks, -1, -4).reshape(*many, aligned, h, w, c)
    rest = raw[..., cut:]
    if depthwise:
        tail = np.moveaxis(rest.reshape(*many, h, w, 1, n - aligned), -1, -4)
    else:
        tail = rest.reshape(*many, n - aligned, h, w, c)
    out[..., aligned:, :, :, :] = tail
    return out


def pack_filter(logical: Array, target: str, *, depthwise: bool = False) -> Array:
    """Inverse of `unpack_filter`.

    Args:
        logical: ``(..., N, H, W, C)``, int8 or int16; C is 1 for depthwise.
        target: Name in `TARGETS`.
        depthwise: See `unpack_filter`.

    Returns:
        The elements as stored, shape ``(..., N * H * W * C)``, same dtype.

    Raises:
        ValueError: A depthwise filter has more than one input channel.
    """
    *many, n, h, w, c = logical.shape
    if depthwise and c != 1:
        raise ValueError(f"{logical.shape} is not the shape of a depthwise filter")
    blk, whole = _blocks(n, logical.dtype, target)
    blocks = logical[..., : blk * whole, :, :, :].reshape(*many, whole, blk, h, w, c)
    tail = logical[..., blk * whole :, :, :, :]
    if depthwise:
        tail = np.moveaxis(tail, -4, -1)
    flat = (np.moveaxis(blocks, -4, -1), tail)
    sizes = (blk * whole * h * w * c, (n - blk * whole) * h * w * c)
    return np.concatenate(
        [part.reshape(*many, size) for part, size in zip(flat, sizes, strict=True)], axis=-1
    )


def _blocks(n: int, dtype: np.dtype[Any], target: str) -> tuple[int, int]:
    """Channels in a block, and how many whole blocks *n* channels make on this target."""
    blk = block_size(dtype)
    return blk, n // blk if TARGETS[target].packed_filters else 0


def unpack_matrices(raw: Array, stored: Shape, target: str) -> Array:
    """Second operand of a MatMul, constant or computed, in logical order.

    Args:
        raw: Elements as stored, any shape, int8 or int16.
        stored: ``(..., C, N)``, or ``(C,)`` which is not packed.
        target: Name in `TARGETS`.

    Returns:
        Matrices of shape *stored*, same dtype.
    """
    if len(stored) < 2:
        return raw.reshape(stored)
    *many, c, n = stored
    logical = unpack_filter(raw.reshape(*many, c * n), (1, 1, c, n), target)
    return logical.reshape(*many, n, c).swapaxes(-1, -2)


def pack_matrices(logical: Array, target: str) -> Array:
    """Inverse of `unpack_matrices`.

    Args:
        logical: ``(..., C, N)`` or ``(C,)``, int8 or int16.
        target: Name in `TARGETS`.

    Returns:
        The elements as stored, in the shape of *logical*.
    """
    if logical.ndim < 2:
        return logical
    *many, c, n = logical.shape
    filters = logical.swapaxes(-1, -2).reshape(*many, n, 1, 1, c)
    return pack_filter(filters, target).reshape(logical.shape)
