"""The same elements in another order or shape: reshapes, Transpose, DepthToSpace, SpaceToDepth.

Reshapes are views of their input and cost nothing at a step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.espdl.graph import MAX_RANK
from espdl_hil.operators.kernel import Kernel, copier
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.signature import LENGTHS, LENGTHS_OPTIONAL, Operator, moves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode


def build_view(bound: BoundNode) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity: the same elements in another shape.

    Matches: ``Reshape::forward`` and its kin, which share or copy the buffer.
    """
    bound.out.array = bound.input().array.reshape(bound.out.shape)


def _flatten_shapes(view: NodeView) -> list[Shape]:
    axis, rank = view.integer("axis", 1), len(view.shape)
    if not -rank <= axis <= rank:
        raise NodeProblem(f"axis {axis} is outside the {rank} dimensions")
    axis = axis + rank if axis < 0 else axis
    return [(math.prod(view.shape[:axis]), math.prod(view.shape[axis:]))]


def _reshape_shapes(view: NodeView) -> list[Shape]:
    wanted = view.constant_integers(1)
    if wanted is None:
        raise NodeProblem("there is no shape tensor")
    size = math.prod(view.shape)
    filled = []
    for i, dim in enumerate(wanted):
        if dim == 0 and view.integer("allowzero", 0) == 0 and i < len(view.shape):
            filled.append(view.shape[i])
        else:
            filled.append(dim)
    known = math.prod(dim for dim in filled if dim != -1)
    free = filled.count(-1)
    if any(dim < -1 for dim in filled) or free > 1 or known < 1:
        raise NodeProblem(f"the shape tensor {wanted} is not a shape")
    if (size % known if free else size - known) != 0:
        raise NodeProblem(
            f"the shape tensor {wanted} does not hold the {size} elements of {view.shape}; "
            "a frame count of the offline model was kept, and the chip asserts at load"
        )
    return [tuple(size // known if dim == -1 else dim for dim in filled)]


def _squeeze_shapes(view: NodeView) -> list[Shape]:
    rank, axes = len(view.shape), view.constant_integers(1)
    if axes is None:
        return [tuple(dim for dim in view.shape if dim != 1)]
    chosen = {view.axis(axis, rank) for axis in axes}
    return [tuple(dim for i, dim in enumerate(view.shape) if dim != 1 or i not in chosen)]


def _unsqueeze_shapes(view: NodeView) -> list[Shape]:
    axes = view.constant_integers(1)
    if axes is None:
        raise NodeProblem("there is no axes tensor")
    rank = len(view.shape) + len(axes)
    if rank > MAX_RANK:
        raise NodeProblem(f"the output would have {rank} dimensions, not {MAX_RANK}")
    chosen = {view.axis(axis, rank) for axis in axes}
    if len(chosen) != len(axes):
        raise NodeProblem(f"axes {axes} repeat")
    rest = iter(view.shape)
    return [tuple(1 if i in chosen else next(rest) for i in range(rank))]


def _transpose_shapes(view: NodeView) -> list[Shape]:
    rank = len(view.shape)
    perm = tuple(view.axis(axis, rank) for axis in view.integers("perm"))
    if sorted(perm) != list(range(rank)):
        raise NodeProblem(f"perm {perm} does not fit the {rank} dimensions")
    return [tuple(view.shape[axis] for axis in perm)]


def build_transpose(bound: BoundNode) -> Kernel:
    """Transpose.

    Matches: ``TensorBase::transpose``.
    """
    rank = len(bound.input().shape)
    perm = bound.integers("perm", tuple(range(rank))[::-1])
    return copier(bound.input().array.transpose([axis % rank for axis in perm]), bound.out.array)


def _block(view: NodeView) -> int:
    if len(view.shape) != 4:
        raise NodeProblem(f"input {view.shape}, ESP-DL takes (N, H, W, C)")
    block = view.integer("blocksize")
    if block < 1:
        raise NodeProblem(f"blocksize {block}")
    return block


def _depth_to_space_shapes(view: NodeView) -> list[Shape]:
    block = _block(view)
    batch, height, width, channels = view.shape
    if channels % block**2:
        raise NodeProblem(f"{channels} channels are not a multiple of blocksize {block} squared")
    return [(batch, height * block, width * block, channels // block**2)]


def _depth_to_space_rules(placed: PlacedNode) -> Iterator[str]:
    """The DCR mode confuses block size and output channels."""
    block = placed.integer("blocksize")
    channels = placed.shape[3] // block**2
    mode = placed.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        yield f"mode {mode!r}, ESP-DL has DCR and CRD"
    elif mode == "DCR" and channels != block:
        yield (
            f"DCR with blocksize {block} and {channels} output channels: the chip takes one for "
            "the other and writes elsewhere; CRD (torch.nn.PixelShuffle) works"
        )


def build_depth_to_space(bound: BoundNode) -> Kernel:
    """DepthToSpace in NHWC, mode CRD, or DCR with as many output channels as the block is wide.

    Matches: ``DepthToSpace::depth_to_space_crd``, ``depth_to_space_dcr``.
    """
    source, block = bound.input().array, bound.integer("blocksize")
    batch, height, width, channels = source.shape
    depth = channels // block**2
    crd = bound.text("mode", "DCR") == "CRD"
    split = (depth, block, block) if crd else (block, block, depth)
    order = (0, 1, 4, 2, 5, 3) if crd else (0, 1, 3, 2, 4, 5)
    parts = source.reshape(batch, height, width, *split).transpose(order)
    return copier(parts, bound.out.array.reshape(parts.shape))


def _space_to_depth_shapes(view: NodeView) -> list[Shape]:
    block = _block(view)
    batch, height, width, channels = view.shape
    if height % block or width % block:
        raise NodeProblem(f"({height}, {width}) is not a multiple of blocksize {block}")
    return [(batch, height // block, width // block, channels * block**2)]


def build_space_to_depth(bound: BoundNode) -> Kernel:
    """SpaceToDepth in NHWC; output channels count channel first, then row, then column.

    Matches: ``SpaceToDepth::space_to_depth``.
    """
    source, block = bound.input().array, bound.integer("blocksize")
    batch, height, width, channels = source.shape
    parts = source.reshape(batch, height // block, block, width // block, block, channels)
    parts = parts.transpose(0, 1, 3, 5, 2, 4)
    return copier(parts, bound.out.array.reshape(parts.shape))


OPERATORS = {
    "DepthToSpace": Operator(
        build_depth_to_space,
        _depth_to_space_shapes,
        _depth_to_space_rules,
        limits="(N, H, W, C)",
        copies=True,
    ),
    "Flatten": moves(build_view, _flatten_shapes),
    "Identity": moves(build_view),
    "Reshape": moves(build_view, _reshape_shapes, inputs=(LENGTHS,)),
    "SpaceToDepth": Operator(
        build_space_to_depth, _space_to_depth_shapes, limits="(N, H, W, C)", copies=True
    ),
    "Squeeze": moves(build_view, _squeeze_shapes, inputs=(LENGTHS_OPTIONAL,)),
    "Transpose": moves(build_transpose, _transpose_shapes),
    "Unsqueeze": moves(build_view, _unsqueeze_shapes, inputs=(LENGTHS,)),
}
