"""Concat, Pad and InsertZeros: longer tensors from what is there and constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.kernel import Kernel, copier, gatherer, in_order
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.signature import LENGTHS, Operator, fixed, moves
from espdl_hil.operators.windows import spatial_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

MAX_PAD_RANK = 4
PAD_MODES = ("constant", "edge", "reflect")


def _concat_shapes(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("axis"), len(view.shape))
    parts = [view.shape_of(i) for i in range(len(view.shapes))]
    if len(parts) < 2:
        raise NodeProblem("one input, ESP-DL takes two or more")
    rest = {part[:axis] + part[axis + 1 :] for part in parts}
    if len(rest) != 1 or len({len(part) for part in parts}) != 1:
        raise NodeProblem(f"inputs {parts} differ outside axis {axis}")
    total = sum(part[axis] for part in parts)
    return [(*view.shape[:axis], total, *view.shape[axis + 1 :])]


def build_concat(bound: BoundNode) -> Kernel:
    """Concat of raw elements.

    Matches: ``Concat::forward_template``.
    """
    axis = bound.axis(bound.integer("axis"), len(bound.out.shape))
    parts = [bound.input(i).array for i in range(len(bound.inputs))]
    ends = np.cumsum([part.shape[axis] for part in parts])[:-1].tolist()
    places = np.split(bound.out.array, ends, axis)
    return in_order([copier(part, place) for part, place in zip(parts, places, strict=True)])


def _pad_shapes(view: NodeView) -> list[Shape]:
    rank, pads = len(view.shape), view.constant_integers(1)
    if pads is None or len(pads) != 2 * rank:
        raise NodeProblem(f"pads {pads} do not fit the {rank} dimensions")
    return [tuple(pads[i] + dim + pads[i + rank] for i, dim in enumerate(view.shape))]


def _pad_rules(placed: PlacedNode) -> Iterator[str]:
    mode = placed.text("mode", "constant")
    if mode not in PAD_MODES:
        yield f"mode {mode!r}, ESP-DL has {', '.join(PAD_MODES)}"
    if len(placed.shape) > MAX_PAD_RANK:
        yield f"{len(placed.shape)} dimensions, ESP-DL pads up to {MAX_PAD_RANK}"
    pads = placed.constant_integers(1) or ()
    if any(amount < 0 for amount in pads):
        yield f"pads {pads} are negative; the chip writes outside the output"
    longest = (max(pads[i], pads[i + len(placed.shape)]) for i in range(len(placed.shape)))
    if mode == "reflect" and any(
        amount >= dim for amount, dim in zip(longest, placed.shape, strict=True)
    ):
        yield f"pads {pads} reflect more than {placed.shape} holds"
    value = placed.stored(2)
    if value is not None and mode == "constant":
        yield from _pad_value(placed)


def _pad_value(placed: PlacedNode) -> Iterator[str]:
    value, taken = placed.info(2), placed.info(0)
    if value.size < 1:
        yield "the padding value is empty"
    elif value.dtype != taken.dtype:
        yield f"the padding value is {value.dtype}, the input {taken.dtype}"
    elif value.exponents != taken.exponents and placed.constant(2)[0] != 0:  # type: ignore[index]
        yield (
            f"the padding value has exponent {value.exponents}, the input {taken.exponents}; the "
            "chip copies the integer"
        )


def build_pad(bound: BoundNode) -> Kernel:
    """Pad: constant, edge or reflect.

    Matches: ``base::pad4D`` and its lower ranks.
    """
    source, output, mode = bound.input().array, bound.out.array, bound.text("mode", "constant")
    pads, value = bound.constant_integers(1), bound.constant(2)
    assert pads is not None  # the shapes were inferred from it
    widths = list(zip(pads[: source.ndim], pads[source.ndim :], strict=True))
    if mode != "constant":
        indices = np.arange(source.size).reshape(source.shape)
        return gatherer(source, output, np.pad(indices, widths, mode))  # type: ignore[call-overload]
    output[...] = 0 if value is None else value[0]
    middle = tuple(
        slice(before, before + length)
        for (before, _), length in zip(widths, source.shape, strict=True)
    )
    return copier(source, output[middle])


def _insert_zeros_shapes(view: NodeView) -> list[Shape]:
    spatial = spatial_rank(view)
    strides = _one_or_each(view, "stride", spatial)
    extra = _one_or_each(view, "output_padding", spatial)
    if len(strides) != spatial or len(extra) != spatial or min(strides) < 1 or min(extra) < 0:
        raise NodeProblem(f"stride {strides} and output_padding {extra} for {spatial} axes")
    lengths = ((view.shape[1 + i] - 1) * strides[i] + 1 + extra[i] for i in range(spatial))
    return [(view.shape[0], *lengths, view.shape[-1])]


def _one_or_each(view: NodeView, name: str, spatial: int) -> Shape:
    values = view.integers(name)
    return values * spatial if len(values) == 1 else values


def build_insert_zeros(bound: BoundNode) -> Kernel:
    """InsertZeros: ``stride - 1`` zeros between elements of each spatial axis.

    Matches: ``InsertZeros::forward_template``.
    """
    source, output = bound.input().array, bound.out.array
    strides = _one_or_each(bound, "stride", source.ndim - 2)
    places = (
        slice(None),
        *(slice(0, (n - 1) * s + 1, s) for n, s in zip(source.shape[1:-1], strides, strict=True)),
        slice(None),
    )
    return copier(source, output[places])


_PAD_VALUE = fixed("int8", "int16", "float32", constant=True, optional=True, weight=True)
OPERATORS = {
    "Concat": Operator(build_concat, _concat_shapes, variadic=True, copies=True),
    "InsertZeros": Operator(
        build_insert_zeros, _insert_zeros_shapes, limits="(N, W, C) or (N, H, W, C)", copies=True
    ),
    "Pad": moves(
        build_pad,
        _pad_shapes,
        _pad_rules,
        inputs=(LENGTHS, _PAD_VALUE),
        limits="constant, edge or reflect, up to 4 dimensions",
    ),
}
