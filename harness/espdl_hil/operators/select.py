"""Slice, Gather, Split, ReverseSequence, ScatterND: elements taken or put by constant indices."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.kernel import Kernel, copier, in_order
from espdl_hil.operators.numeric import limits
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.signature import (
    INDICES,
    INDICES_OPTIONAL,
    LENGTHS,
    STEP_VISITS,
    TENSOR,
    Operator,
    moves,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

COMBINATIONS = {
    "none": None,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def slice_ranges(view: NodeView) -> list[range]:
    """The indices that a Slice takes of each axis.

    Raises:
        NodeProblem: An axis gets nothing, or the constants are missing.
    """
    starts, ends, axes, steps = (view.constant(i) for i in range(1, 5))
    if starts is None or ends is None or len(starts) != len(ends):
        raise NodeProblem("starts and ends are missing or of different lengths")
    rank = len(view.shape)
    if max(len(starts), 0 if axes is None else len(axes)) > rank:
        raise NodeProblem(f"more starts or axes than the {rank} dimensions")
    ranges = [range(dim) for dim in view.shape]
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = view.axis(i if axes is None else _at(axes, i), rank)
        step = 1 if steps is None else _at(steps, i)
        if step == 0:
            raise NodeProblem("a step of 0")
        ranges[axis] = range(view.shape[axis])[slice(start, end, step)]
        if not len(ranges[axis]):
            raise NodeProblem(
                f"[{start}:{end}:{step}] of axis {axis}, which has {view.shape[axis]}, is empty; "
                "the chip asserts at load"
            )
    return ranges


def _at(values: Array, index: int) -> int:
    if index >= len(values):
        raise NodeProblem("axes or steps are shorter than starts")
    return int(values[index])


def _slice_shapes(view: NodeView) -> list[Shape]:
    return [tuple(len(indices) for indices in slice_ranges(view))]


def _slice_rules(placed: PlacedNode) -> Iterator[str]:
    starts, ends, axes, steps = (placed.constant(i) for i in range(1, 5))
    dtypes = {values.dtype for values in (starts, ends, axes, steps) if values is not None}
    if len(dtypes) != 1:
        yield f"starts, ends, axes and steps are {sorted(map(str, dtypes))}, the chip reads one"
    if starts is None or ends is None:
        return
    rank = len(placed.shape)
    chosen = [placed.axis(int(a), rank) for a in (range(len(starts)) if axes is None else axes)]
    if len(set(chosen)) != len(chosen):
        yield f"axes {chosen} repeat"
    wanted = slice_ranges(placed)
    for i, axis in enumerate(chosen[: len(starts)]):
        step = 1 if steps is None else int(steps[i])
        taken = chip_indices(placed.shape[axis], int(starts[i]), int(ends[i]), step)
        if taken != wanted[axis]:
            yield (
                f"[{starts[i]}:{ends[i]}:{step}] of axis {axis}, which has {placed.shape[axis]}: "
                "the chip takes other elements"
            )


def chip_indices(length: int, start: int, end: int, step: int) -> range:
    """The indices that ``TensorBase::slice`` takes; it flips the result of a negative step."""
    start, end = (max(-(2**31), min(2**31 - 1, v)) for v in (start, end))
    flipped = step < 0
    if flipped:
        start, step = -start - 1, -step
        end = 2**31 - 1 if end == -(2**31) else -end - 1
    end = min(end, length)
    first = start + length if start < 0 else start % (length + 1)
    last = end + length if end < 0 else end
    taken = range(first, last, step)
    return taken[::-1] if flipped else taken


def build_slice(bound: BoundNode) -> Kernel:
    """Slice.

    Matches: ``TensorBase::slice``.
    """
    taken = tuple(
        slice(indices.start, indices.stop if indices.stop >= 0 else None, indices.step)
        for indices in slice_ranges(bound)
    )
    return copier(bound.input().array[taken], bound.out.array)


def _gather_shapes(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("axis", 0), len(view.shape))
    view.constant(1)
    return [(*view.shape[:axis], *view.shape_of(1), *view.shape[axis + 1 :])]


def _gather_rules(placed: PlacedNode) -> Iterator[str]:
    axis = placed.axis(placed.integer("axis", 0), len(placed.shape))
    indices = placed.constant(1)
    if indices is not None and len(indices):
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= placed.shape[axis]:
            yield (
                f"indices {low} to {high} of axis {axis}, which has {placed.shape[axis]}; the chip "
                "does not count from the end and reads outside"
            )


def build_gather(bound: BoundNode) -> Kernel:
    """Gather along one axis by constant indices.

    Matches: ``Gather::forward_template``.
    """
    source, indices = bound.input().array, bound.input(1).array
    axis = bound.axis(bound.integer("axis", 0), source.ndim)
    output, places = bound.out.array, indices.astype(np.intp)
    return partial(source.take, places, axis, out=output, mode="clip")


def _split_shapes(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("axis", 0), len(view.shape))
    parts = view.constant_integers(1)
    if parts is None:
        raise NodeProblem(
            "there is no split tensor; ESP-DL takes num_outputs for the length of each part"
        )
    if sum(parts) != view.shape[axis] or len(parts) != len(view.node.outputs):
        raise NodeProblem(
            f"parts {parts} for {len(view.node.outputs)} outputs of axis {axis}, which has "
            f"{view.shape[axis]}"
        )
    return [(*view.shape[:axis], part, *view.shape[axis + 1 :]) for part in parts]


def build_split(bound: BoundNode) -> Kernel:
    """Split along one axis, lengths from the split tensor.

    Matches: ``Split::forward``.
    """
    source = bound.input().array
    axis = bound.axis(bound.integer("axis", 0), source.ndim)
    ends = np.cumsum([out.shape[axis] for out in bound.outputs])[:-1].tolist()
    parts = np.split(source, ends, axis)
    return in_order(
        [copier(part, out.array) for part, out in zip(parts, bound.outputs, strict=True)]
    )


def _reverse_sequence_rules(placed: PlacedNode) -> Iterator[str]:
    """Rows of the first two axes."""
    batch, time = placed.integer("batch_axis", 1), placed.integer("time_axis", 0)
    if sorted((batch, time)) != [0, 1] or len(placed.shape) < 2:
        yield f"batch_axis {batch} and time_axis {time}, the chip takes the first two axes"
        return
    lengths = placed.constant_integers(1) or ()
    if len(lengths) != placed.shape[batch] or any(
        not 0 <= length <= placed.shape[time] for length in lengths
    ):
        yield f"sequence lengths {lengths} do not fit {placed.shape}"


def build_reverse_sequence(bound: BoundNode) -> Kernel:
    """ReverseSequence: the first ``length`` steps of each batch entry, reversed.

    Matches: ``ReverseSequence::reverse_sequence_impl``.
    """
    source, output = bound.input().array, bound.out.array
    lengths, batch = bound.constant_integers(1), bound.integer("batch_axis", 1)
    assert lengths is not None  # ESP-DL reads a constant
    if bound.out.is_float:
        raise NodeProblem("float32: the chip swaps elements through an int and cuts fractions off")
    x, y = np.moveaxis(source, batch, 0), np.moveaxis(output, batch, 0)

    def reverse() -> None:
        y[...] = x
        for i, length in enumerate(lengths):
            y[i, :length] = x[i, :length][::-1]

    return reverse


def _scatter_nd_rules(placed: PlacedNode) -> Iterator[str]:
    if placed.text("reduction", "none") not in COMBINATIONS:
        yield f"reduction {placed.text('reduction')!r}, ESP-DL has {', '.join(COMBINATIONS)}"
    indices, where = placed.constant(1), placed.shape_of(1)
    depth = where[-1] if where else 0
    if indices is None or not 1 <= depth <= len(placed.shape):
        yield f"indices of shape {where} do not fit {placed.shape}"
        return
    expected = (*where[:-1], *placed.shape[depth:])
    if placed.shape_of(2) != expected:
        yield f"updates of shape {placed.shape_of(2)}, expected {expected}"
    places = indices.reshape(-1, depth)
    if ((places < 0) | (places >= placed.shape[:depth])).any():
        yield f"indices outside {placed.shape[:depth]}; the chip writes outside the output"


def build_scatter_nd(bound: BoundNode) -> Kernel:
    """ScatterND with reduction none, add, mul, max or min; integers saturate, entry by entry.

    Matches: ``ScatterND::forward_template``.
    """
    source, updates, output = bound.input().array, bound.input(2).array, bound.out.array
    depth = bound.input(1).shape[-1]
    places = bound.input(1).array.reshape(-1, depth)
    parts = updates.reshape(len(places), *source.shape[depth:])
    combine = COMBINATIONS[bound.text("reduction", "none")]
    wide = np.dtype(np.float32 if bound.out.is_float else np.int64)
    low, high = (-np.inf, np.inf) if bound.out.is_float else limits(source.dtype)

    def scatter() -> None:
        output[...] = source
        for place, part in zip(map(tuple, places.tolist()), parts, strict=True):
            if combine is None:
                output[place] = part
            else:
                current = np.asarray(output[place]).astype(wide)
                output[place] = combine(current, part).clip(low, high)

    return scatter


def _reverse_visits(view: NodeView, _: Shape) -> int:
    return STEP_VISITS * view.shape_of(1)[0]


def _scatter_visits(view: NodeView, _: Shape) -> int:
    return STEP_VISITS * math.prod(view.shape_of(1)[:-1])


OPERATORS = {
    "Gather": moves(
        build_gather,
        _gather_shapes,
        _gather_rules,
        inputs=(INDICES,),
        limits="indices that are constant",
    ),
    "ReverseSequence": Operator(
        build_reverse_sequence,
        rules=_reverse_sequence_rules,
        inputs=(TENSOR, LENGTHS),
        limits="batch and time are the first two axes",
        copies=True,
        visits=_reverse_visits,
    ),
    "ScatterND": Operator(
        build_scatter_nd,
        rules=_scatter_nd_rules,
        inputs=(TENSOR, LENGTHS, TENSOR),
        copies=True,
        visits=_scatter_visits,
    ),
    "Slice": moves(
        build_slice,
        _slice_shapes,
        _slice_rules,
        inputs=(INDICES, INDICES, INDICES_OPTIONAL, INDICES_OPTIONAL),
    ),
    "Split": replace(moves(build_split, _split_shapes, inputs=(LENGTHS,)), fans_out=True),
}
