"""Shapes of one node's outputs, as each ESP-DL module's ``get_output_shape`` finds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from espdl_hil.operators.node_view import INT32_MAX, NodeProblem, NodeView

if TYPE_CHECKING:
    from espdl_hil.espdl.graph import Array, Shape

ShapeRule: TypeAlias = Callable[[NodeView], "list[Shape]"]


def _same(view: NodeView) -> list[Shape]:
    return [view.shape]


def broadcast(first: Shape, second: Shape) -> Shape:
    """Shape of an element-wise operator with two inputs.

    ESP-DL takes the longer of two lengths without asking whether they are compatible.

    Raises:
        NodeProblem: They are not, and the chip would read out of range.
    """
    rank = max(len(first), len(second))
    pairs = list(
        zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    )
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise NodeProblem(
            f"shapes {first} and {second} do not broadcast; the chip takes the longer length of "
            "each axis without a check and reads out of range"
        )
    return tuple(max(pair) for pair in pairs)


def _binary(view: NodeView) -> list[Shape]:
    return [broadcast(view.shape_of(0), view.shape_of(1))]


def pads_of(view: NodeView, spatial: int) -> Shape:
    """Pads as (begin..., end...) over the *spatial* axes; ESP-DL takes 0, 2 or 4 of them.

    Raises:
        NodeProblem: Another number of pads.
    """
    pads = view.integers("pads", ())
    if len(pads) == 0:
        return (0,) * (2 * spatial)
    if len(pads) != 2 * spatial:
        raise NodeProblem(f"pads {pads} do not fit {spatial} spatial axes")
    return pads


def spatial_rank(view: NodeView) -> int:
    """1 for (N, W, C), 2 for (N, H, W, C).

    Raises:
        NodeProblem: Another rank.
    """
    rank = len(view.shape)
    if rank not in (3, 4):
        raise NodeProblem(f"input of {rank} dimensions, ESP-DL takes (N, W, C) or (N, H, W, C)")
    return rank - 2


def per_axis(view: NodeView, name: str, spatial: int, default: Shape | None = None) -> Shape:
    """One positive integer a spatial axis.

    Raises:
        NodeProblem: Too few, or one that is not positive.
    """
    values = view.integers(name, default)
    if len(values) != spatial or any(v < 1 for v in values):
        raise NodeProblem(f"attribute {name} {values} does not fit {spatial} spatial axes")
    return values


def _windows(view: NodeView, kernel: Shape, dilations: Shape) -> Shape:
    """Spatial lengths of a sliding window over the first input."""
    spatial = len(kernel)
    pads, strides = pads_of(view, spatial), per_axis(view, "strides", spatial)
    lengths = []
    for i in range(spatial):
        padded = view.shape[1 + i] + pads[i] + pads[spatial + i]
        span = dilations[i] * (kernel[i] - 1) + 1
        if span > padded:
            raise NodeProblem(f"the kernel spans {span} of axis {1 + i}, padded to {padded}")
        lengths.append((padded - span) // strides[i] + 1)
    return tuple(lengths)


def _conv(view: NodeView) -> list[Shape]:
    spatial, stored = spatial_rank(view), view.shape_of(1)
    if len(stored) != spatial + 2:
        raise NodeProblem(f"a filter of shape {stored} does not fit {spatial} spatial axes")
    group, channels = view.integer("group", 1), view.shape[-1]
    if group not in (1, channels):
        raise NodeProblem(
            f"group {group} with {channels} channels; ESP-DL takes group 1 or depthwise"
        )
    if stored[-2] != channels:
        raise NodeProblem(f"a filter of shape {stored} does not fit {channels} channels")
    dilations = per_axis(view, "dilations", spatial)
    lengths = _windows(view, stored[:spatial], dilations)
    return [(view.shape[0], *lengths, stored[-1] if group == 1 else channels)]


def _pool(view: NodeView) -> list[Shape]:
    spatial = spatial_rank(view)
    kernel = per_axis(view, "kernel_shape", spatial)
    return [(view.shape[0], *_windows(view, kernel, (1,) * spatial), view.shape[-1])]


def _global_pool(view: NodeView) -> list[Shape]:
    return [(1,) * (1 + spatial_rank(view)) + (view.shape[-1],)]


def _gemm(view: NodeView) -> list[Shape]:
    stored = view.shape_of(1)
    if len(stored) != 4 or stored[:2] != (1, 1) or not view.shape:
        raise NodeProblem(f"a filter of shape {stored}, ESP-DL takes (1, 1, C, N)")
    if view.shape[-1] != stored[2]:
        raise NodeProblem(f"the input {view.shape} has not the filter's {stored[2]} channels")
    return [(*view.shape[:-1], stored[3])]


def _matmul(view: NodeView) -> list[Shape]:
    first, second = view.shape_of(0), view.shape_of(1)
    if not first or not second or max(len(first), len(second)) > 4:
        raise NodeProblem(f"shapes {first} and {second}; ESP-DL takes 1 to 4 dimensions")
    if first[-1] != second[max(len(second) - 2, 0)]:
        raise NodeProblem(f"shapes {first} and {second} do not multiply")
    if len(first) == len(second) == 1:
        return [(1,)]
    if len(second) == 1:
        return [first[:-1]]
    if len(first) == 1:
        return [(*second[:-2], second[-1])]
    return [(*broadcast(first[:-2], second[:-2]), first[-2], second[-1])]


def _concat(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("axis"), len(view.shape))
    parts = [view.shape_of(i) for i in range(len(view.shapes))]
    if len(parts) < 2:
        raise NodeProblem("one input, ESP-DL takes two or more")
    rest = {part[:axis] + part[axis + 1 :] for part in parts}
    if len(rest) != 1 or len({len(part) for part in parts}) != 1:
        raise NodeProblem(f"inputs {parts} differ outside axis {axis}")
    total = sum(part[axis] for part in parts)
    return [(*view.shape[:axis], total, *view.shape[axis + 1 :])]


def _split(view: NodeView) -> list[Shape]:
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


def _flatten(view: NodeView) -> list[Shape]:
    axis, rank = view.integer("axis", 1), len(view.shape)
    if not -rank <= axis <= rank:
        raise NodeProblem(f"axis {axis} is outside the {rank} dimensions")
    axis = axis + rank if axis < 0 else axis
    return [(math.prod(view.shape[:axis]), math.prod(view.shape[axis:]))]


def _reshape(view: NodeView) -> list[Shape]:
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


def _squeeze(view: NodeView) -> list[Shape]:
    rank, axes = len(view.shape), view.constant_integers(1)
    if axes is None:
        return [tuple(dim for dim in view.shape if dim != 1)]
    chosen = {view.axis(axis, rank) for axis in axes}
    return [tuple(dim for i, dim in enumerate(view.shape) if dim != 1 or i not in chosen)]


def _unsqueeze(view: NodeView) -> list[Shape]:
    axes = view.constant_integers(1)
    if axes is None:
        raise NodeProblem("there is no axes tensor")
    rank = len(view.shape) + len(axes)
    chosen = {view.axis(axis, rank) for axis in axes}
    if len(chosen) != len(axes):
        raise NodeProblem(f"axes {axes} repeat")
    rest = iter(view.shape)
    return [tuple(1 if i in chosen else next(rest) for i in range(rank))]


def _transpose(view: NodeView) -> list[Shape]:
    rank = len(view.shape)
    perm = tuple(view.axis(axis, rank) for axis in view.integers("perm"))
    if sorted(perm) != list(range(rank)):
        raise NodeProblem(f"perm {perm} does not fit the {rank} dimensions")
    return [tuple(view.shape[axis] for axis in perm)]


def _pad(view: NodeView) -> list[Shape]:
    rank, pads = len(view.shape), view.constant_integers(1)
    if pads is None or len(pads) != 2 * rank:
        raise NodeProblem(f"pads {pads} do not fit the {rank} dimensions")
    return [tuple(pads[i] + dim + pads[i + rank] for i, dim in enumerate(view.shape))]


def slice_ranges(view: NodeView) -> list[range]:
    """The indices that a Slice takes of each axis.

    Raises:
        NodeProblem: An axis gets nothing, or the constants are missing.
    """
    starts, ends = view.constant(1), view.constant(2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise NodeProblem("starts and ends are missing or of different lengths")
    axes = view.constant(3)
    steps = view.constant(4)
    rank = len(view.shape)
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


def _slice(view: NodeView) -> list[Shape]:
    return [tuple(len(indices) for indices in slice_ranges(view))]


def _gather(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("axis", 0), len(view.shape))
    view.constant(1)
    return [(*view.shape[:axis], *view.shape_of(1), *view.shape[axis + 1 :])]


def reduced_axes(view: NodeView) -> frozenset[int]:
    """The axes that a Reduce operator removes."""
    rank, axes = len(view.shape), view.constant_integers(1)
    if axes:
        return frozenset(view.axis(axis, rank) for axis in axes)
    return frozenset() if view.integer("noop_with_empty_axes", 0) else frozenset(range(rank))


def _reduce(view: NodeView) -> list[Shape]:
    axes, shape = reduced_axes(view), view.shape
    if view.integer("keepdims", 1):
        return [tuple(1 if i in axes else dim for i, dim in enumerate(shape))]
    kept = tuple(dim for i, dim in enumerate(shape) if i not in axes)
    return [kept or (1,)]


def _resize(view: NodeView) -> list[Shape]:
    spatial = spatial_rank(view)
    sizes = view.constant_integers(3)
    if sizes:
        if len(sizes) != spatial + 2:
            raise NodeProblem(f"sizes {sizes} do not fit the input {view.shape}")
        return [(view.shape[0], *sizes[2:], view.shape[-1])]
    scales = view.constant(2)
    if scales is None or len(scales) != spatial + 2 or scales.dtype != "<f4":
        raise NodeProblem("neither sizes nor float32 scales for every axis")
    if not all(0 < scale < INT32_MAX for scale in scales.tolist()):
        raise NodeProblem(f"scales {scales.tolist()} are not positive numbers")
    # int(length * scale) in float32, as the chip computes it
    lengths = (int(scales[2 + i] * scales.dtype.type(view.shape[1 + i])) for i in range(spatial))
    return [(view.shape[0], *lengths, view.shape[-1])]


def _block(view: NodeView) -> int:
    if len(view.shape) != 4:
        raise NodeProblem(f"input {view.shape}, ESP-DL takes (N, H, W, C)")
    block = view.integer("blocksize")
    if block < 1:
        raise NodeProblem(f"blocksize {block}")
    return block


def _depth_to_space(view: NodeView) -> list[Shape]:
    block = _block(view)
    batch, height, width, channels = view.shape
    if channels % block**2:
        raise NodeProblem(f"{channels} channels are not a multiple of blocksize {block} squared")
    return [(batch, height * block, width * block, channels // block**2)]


def _space_to_depth(view: NodeView) -> list[Shape]:
    block = _block(view)
    batch, height, width, channels = view.shape
    if height % block or width % block:
        raise NodeProblem(f"({height}, {width}) is not a multiple of blocksize {block}")
    return [(batch, height // block, width // block, channels * block**2)]


def _insert_zeros(view: NodeView) -> list[Shape]:
    spatial = spatial_rank(view)
    strides, extra = view.integers("stride"), view.integers("output_padding")
    strides = strides * spatial if len(strides) == 1 else strides
    extra = extra * spatial if len(extra) == 1 else extra
    if len(strides) != spatial or len(extra) != spatial or min(strides) < 1 or min(extra) < 0:
        raise NodeProblem(f"stride {strides} and output_padding {extra} for {spatial} axes")
    lengths = ((view.shape[1 + i] - 1) * strides[i] + 1 + extra[i] for i in range(spatial))
    return [(view.shape[0], *lengths, view.shape[-1])]


def _streaming_cache(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("frame_axis", 1), len(view.shape))
    window = view.integer("window_size", 1)
    if window < 1:
        raise NodeProblem(f"window_size {window}, expected 1 or more frames")
    frames = view.shape[axis] + window - 1
    return [(*view.shape[:axis], frames, *view.shape[axis + 1 :])]


def _layer_norm(view: NodeView) -> list[Shape]:
    rank = len(view.shape)
    axis = view.axis(view.integer("axis", -1), rank)
    per_slice = view.shape[:axis] + (1,) * (rank - axis)
    return [view.shape, per_slice, per_slice]


def _recurrent(view: NodeView) -> list[Shape]:
    if len(view.shape) != 3:
        raise NodeProblem(f"input {view.shape}, ESP-DL takes three dimensions")
    hidden = view.integer("hidden_size")
    directions = 2 if view.text("direction", "forward") == "bidirectional" else 1
    frames, batch = view.shape[:2] if view.integer("layout", 0) == 0 else view.shape[1::-1]
    state = (directions, batch, hidden)
    outputs: list[Shape] = [(frames, directions, batch, hidden), state]
    return [*outputs, state] if view.node.op_type == "LSTM" else outputs


_UNARY = (
    "Clip DequantizeLinear Elu Exp Gelu HardSigmoid HardSwish Identity LUT LeakyRelu Log "
    "LogSoftmax LpNormalization Neg PRelu QuantizeLinear RMSNormalization Relu RequantizeLinear "
    "ReverseSequence ScatterND Sigmoid Softmax Sqrt Swish Tanh"
)
_BINARY = "Add Div Equal Greater GreaterOrEqual Less LessOrEqual Mod Mul Pow Sub"
_REDUCE = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare"
)
RULES: dict[str, ShapeRule] = {
    **dict.fromkeys(_UNARY.split(), _same),
    **dict.fromkeys(_BINARY.split(), _binary),
    **dict.fromkeys(_REDUCE.split(), _reduce),
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Flatten": _flatten,
    "GRU": _recurrent,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "InsertZeros": _insert_zeros,
    "LSTM": _recurrent,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "StreamingCache": _streaming_cache,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
