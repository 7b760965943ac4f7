"""Operators that only move elements: reshapes, Transpose, Concat, Split, Slice, Pad, Gather.

Reshapes are views of their input and cost nothing at a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.node_view import NodeProblem
from espdl_hil.operators.numeric import limits
from espdl_hil.operators.prepare import in_order
from espdl_hil.operators.shapes import slice_ranges

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op


def copier(source: Array, destination: Array) -> Kernel:
    """A kernel that copies a view into another."""

    def copy() -> None:
        destination[...] = source

    return copy


def build_view(op: Op) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity: the same elements in another shape.

    Matches: ``Reshape::forward`` and its kin, which share or copy the buffer.
    """
    op.out.array = op.input().array.reshape(op.out.shape)


def build_transpose(op: Op) -> Kernel:
    """Transpose.

    Matches: ``TensorBase::transpose``.
    """
    rank = len(op.input().shape)
    perm = op.view.integers("perm", tuple(range(rank))[::-1])
    return copier(op.input().array.transpose([axis % rank for axis in perm]), op.out.array)


def build_concat(op: Op) -> Kernel:
    """Concat of raw elements.

    Matches: ``Concat::forward_template``.
    """
    axis = op.view.axis(op.view.integer("axis"), len(op.out.shape))
    parts = [op.input(i).array for i in range(len(op.inputs))]
    ends = np.cumsum([part.shape[axis] for part in parts])[:-1].tolist()
    places = np.split(op.out.array, ends, axis)
    return in_order([copier(part, place) for part, place in zip(parts, places, strict=True)])


def build_split(op: Op) -> Kernel:
    """Split along one axis, lengths from the split tensor.

    Matches: ``Split::forward``.
    """
    source = op.input().array
    axis = op.view.axis(op.view.integer("axis", 0), source.ndim)
    ends = np.cumsum([out.shape[axis] for out in op.outputs])[:-1].tolist()
    parts = np.split(source, ends, axis)
    return in_order([copier(part, out.array) for part, out in zip(parts, op.outputs, strict=True)])


def build_slice(op: Op) -> Kernel:
    """Slice.

    Matches: ``TensorBase::slice``.
    """
    taken = tuple(
        slice(indices.start, indices.stop if indices.stop >= 0 else None, indices.step)
        for indices in slice_ranges(op.view)
    )
    return copier(op.input().array[taken], op.out.array)


def build_pad(op: Op) -> Kernel:
    """Pad: constant, edge or reflect.

    Matches: ``base::pad4D`` and its lower ranks.
    """
    source, output, mode = op.input().array, op.out.array, op.view.text("mode", "constant")
    pads, value = op.view.constant_integers(1), op.view.constant(2)
    assert pads is not None  # the shapes were inferred from it
    widths = list(zip(pads[: source.ndim], pads[source.ndim :], strict=True))
    if mode != "constant":
        indices = np.arange(source.size).reshape(source.shape)
        return gatherer(op, np.pad(indices, widths, "edge" if mode == "edge" else "reflect"))
    output[...] = 0 if value is None else value[0]
    middle = tuple(
        slice(before, before + length)
        for (before, _), length in zip(widths, source.shape, strict=True)
    )
    return copier(source, output[middle])


def gatherer(op: Op, indices: Array) -> Kernel:
    """A kernel that fills the output by flat *indices* into the input, made at load."""
    source, output = op.input().array.reshape(-1), op.out.array.reshape(-1)
    flat = np.ascontiguousarray(indices).reshape(-1).astype(np.intp)

    def gather() -> None:
        source.take(flat, out=output, mode="clip")

    return gather


def build_gather(op: Op) -> Kernel:
    """Gather along one axis by constant indices.

    Matches: ``Gather::forward_template``.
    """
    source, indices = op.input().array, op.input(1).array
    axis = op.view.axis(op.view.integer("axis", 0), source.ndim)
    output, places = op.out.array, indices.astype(np.intp)

    def gather() -> None:
        source.take(places, axis, out=output, mode="clip")

    return gather


def build_insert_zeros(op: Op) -> Kernel:
    """InsertZeros: ``stride - 1`` zeros between elements of each spatial axis.

    Matches: ``InsertZeros::forward_template``.
    """
    source, output = op.input().array, op.out.array
    spatial = source.ndim - 2
    strides = op.view.integers("stride")
    strides = strides * spatial if len(strides) == 1 else strides
    places = (
        slice(None),
        *(slice(0, (n - 1) * s + 1, s) for n, s in zip(source.shape[1:-1], strides, strict=True)),
        slice(None),
    )
    return copier(source, output[places])


def build_depth_to_space(op: Op) -> Kernel:
    """DepthToSpace in NHWC, mode CRD, or DCR with as many output channels as the block is wide.

    Matches: ``DepthToSpace::depth_to_space_crd``, ``depth_to_space_dcr``.
    """
    source, block = op.input().array, op.view.integer("blocksize")
    batch, height, width, channels = source.shape
    depth = channels // block**2
    crd = op.view.text("mode", "DCR") == "CRD"
    split = (depth, block, block) if crd else (block, block, depth)
    order = (0, 1, 4, 2, 5, 3) if crd else (0, 1, 3, 2, 4, 5)
    parts = source.reshape(batch, height, width, *split).transpose(order)
    return copier(parts, op.out.array.reshape(parts.shape))


def build_space_to_depth(op: Op) -> Kernel:
    """SpaceToDepth in NHWC; output channels count channel first, then row, then column.

    Matches: ``SpaceToDepth::space_to_depth``.
    """
    source, block = op.input().array, op.view.integer("blocksize")
    batch, height, width, channels = source.shape
    parts = source.reshape(batch, height // block, block, width // block, block, channels)
    parts = parts.transpose(0, 1, 3, 5, 2, 4)
    return copier(parts, op.out.array.reshape(parts.shape))


def build_reverse_sequence(op: Op) -> Kernel:
    """ReverseSequence: the first ``length`` steps of each batch entry, reversed.

    Matches: ``ReverseSequence::reverse_sequence_impl``.
    """
    source, output = op.input().array, op.out.array
    lengths, batch = op.view.constant_integers(1), op.view.integer("batch_axis", 1)
    assert lengths is not None  # ESP-DL reads a constant
    if op.out.is_float:
        raise NodeProblem("float32: the chip swaps elements through an int and cuts fractions off")
    x, y = np.moveaxis(source, batch, 0), np.moveaxis(output, batch, 0)

    def reverse() -> None:
        y[...] = x
        for i, length in enumerate(lengths):
            y[i, :length] = x[i, :length][::-1]

    return reverse


REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def build_scatter_nd(op: Op) -> Kernel:
    """ScatterND with reduction none, add, mul, max or min; integers saturate, entry by entry.

    Matches: ``ScatterND::forward_template``.
    """
    source, updates, output = op.input().array, op.input(2).array, op.out.array
    indices = op.input(1).array
    depth = indices.shape[-1]
    places = [tuple(place) for place in indices.reshape(-1, depth).tolist()]
    parts = updates.reshape(len(places), *source.shape[depth:])
    combine = REDUCTIONS.get(op.view.text("reduction", "none"))
    wide = np.dtype(np.float32 if op.out.is_float else np.int64)
    low, high = (-np.inf, np.inf) if op.out.is_float else limits(source.dtype)

    def scatter() -> None:
        output[...] = source
        for place, part in zip(places, parts, strict=True):
            if combine is None:
                output[place] = part
            else:
                current = np.asarray(output[place]).astype(wide)
                output[place] = combine(current, part).clip(low, high)

    return scatter
