"""Operators that mix along an axis; none of them may mix frames."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.attributes import integer, text
from espdl_hil.streaming.rules import refuse
from espdl_hil.streaming.timing import Flow, Tail, Timing
from espdl_hil.streaming.transfer.layout import node_axes
from espdl_hil.streaming.transfer.pointwise import align_inputs, broadcast_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.streaming.analysis import Walk
    from espdl_hil.streaming.graph import Node

REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
TO_THE_END = ("LayerNorm", "LayerNormalization", "RMSNormalization")
WHOLE = ("Attention", "GroupNormalization", "InstanceNormalization")
ONE_AXIS = ("LogSoftmax", "LpNormalization", "Softmax")
TRANSPOSED = {3: (0, 2, 1), 4: (0, 2, 3, 1)}  # file axis to the exporter's original axis


def gemm(walk: Walk, node: Node) -> None:
    """Matrix product with a constant: ``(M, K)`` with a filter stored as ``(1, 1, K, N)``."""
    shape = walk.shape[node.inputs[0]]
    width = walk.shape[node.inputs[1]][-1]
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow) and timing.axis == len(shape) - 1:
        raise refuse(rules.FOLDED, node.name, "it sums over frames")
    if isinstance(timing, Tail):
        timing = replace(timing, axis=-1)
    relu = text(node, "activation", "") == "Relu"
    walk.put(node.outputs[0], (*shape[:-1], width), _computed(timing, relu), node)


def matmul(walk: Walk, node: Node) -> None:
    """Matrix product; time may be a row, a column or a batch, but is never summed over."""
    left, right = (walk.shape[name] for name in node.inputs[:2])
    flows = [walk.flow(node, index) for index in (0, 1)]
    rank = max(len(left), len(right))
    batch = broadcast_shape([left[:-2], right[:-2]])
    shape = (*batch, left[-2], right[-1])
    if flows[0] and flows[0].axis == len(left) - 1:
        raise refuse(rules.ATTENTION, node.name, "it sums over frames")
    if flows[1] and flows[1].axis == len(right) - 2:
        raise refuse(rules.ATTENTION, node.name, "it sums over frames")
    if flows[0] and flows[1]:
        in_batch = flows[0].axis < len(left) - 2 and flows[1].axis < len(right) - 2
        if not in_batch:
            raise refuse(rules.ATTENTION, node.name, "both operands carry time")
        timing = align_inputs(walk, node, (1,) * rank)
    elif flows[0] or flows[1]:
        index = 0 if flows[0] else 1
        if any(isinstance(walk.timing_of(node, i), Tail) for i in (0, 1)):
            raise refuse(rules.NONCAUSAL, node.name, "frames meet a value of the last frames")
        timing = _settled(walk, node, index)
        assert isinstance(timing, Flow)
        timing = timing.moved(timing.axis + rank - len((left, right)[index]))
    else:
        timing = _still(walk, node)
    walk.put(node.outputs[0], shape, _computed(timing, relu=False), node)


def _settled(walk: Walk, node: Node, index: int) -> Timing:
    """The timing of an input, with padding before the first frame made real."""
    timing = walk.timing_of(node, index)
    if isinstance(timing, Flow) and timing.delay < 0:
        return walk.delay(node, index, 0)
    return timing


def _computed(timing: Timing, relu: bool) -> Timing:
    """After arithmetic a zero frame need not be zero any more."""
    if isinstance(timing, Flow):
        return replace(timing, clean=timing.delay == 0, nonnegative=relu)
    return timing


def _still(walk: Walk, node: Node) -> Timing:
    timing = align_inputs(walk, node, (1,))
    return replace(timing, axis=-1) if isinstance(timing, Tail) else timing


def normalize(walk: Walk, node: Node) -> None:
    """Normalize along one axis, or from it to the end."""
    shape = walk.shape[node.inputs[0]]
    axis = integer(node, "axis", -1) % len(shape)
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow):
        to_the_end = node.op_type in TO_THE_END
        if timing.axis == axis or (to_the_end and timing.axis > axis):
            raise refuse(rules.NORMALIZATION, node.name, f"axis {axis} of {shape} is time")
    for output in node.outputs:
        walk.put(output, shape, _computed(timing, relu=False), node)


def reduce(walk: Walk, node: Node) -> None:
    """Reduction over some axes."""
    name = node.inputs[0]
    shape = walk.shape[name]
    axes = node_axes(walk, node, len(shape))
    if axes is None or (not axes and not integer(node, "noop_with_empty_axes", 0)):
        axes = tuple(range(len(shape)))
    keep = bool(integer(node, "keepdims", 1))
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow) and timing.axis in axes:
        raise refuse(
            rules.REDUCTION, node.name, f"it reduces axes {list(axes)}, {timing.axis} is time"
        )
    if isinstance(timing, Flow | Tail) and timing.axis >= 0 and not keep:
        gone = timing.axis in axes
        shift = sum(axis < timing.axis for axis in axes)
        timing = replace(timing, axis=-1 if gone else timing.axis - shift)
    sizes = [1 if axis in axes else size for axis, size in enumerate(shape)]
    if not keep:
        sizes = [size for axis, size in enumerate(shape) if axis not in axes]
    walk.put(node.outputs[0], sizes, _computed(timing, relu=False), node)


def global_pool(walk: Walk, node: Node) -> None:
    """Pool over everything but batch and channels."""
    shape = walk.shape[node.inputs[0]]
    walk.refuse_flow(rules.GLOBAL_POOL, node, "it pools all frames")
    timing = walk.timing_of(node, 0)
    walk.put(node.outputs[0], (shape[0], *(1,) * (len(shape) - 2), shape[-1]), timing, node)


def resize(walk: Walk, node: Node) -> None:
    """Resize; scales and sizes stand in the exporter's original order of axes (NCHW)."""
    shape = walk.shape[node.inputs[0]]
    order = TRANSPOSED.get(len(shape), tuple(range(len(shape))))
    scales, sizes = walk.constant(node, 2), walk.constant(node, 3)
    if sizes is not None and sizes.size:
        out = tuple(int(sizes.reshape(-1)[axis]) for axis in order)
    elif scales is not None and scales.size:
        factors = scales.reshape(-1).tolist()
        out = tuple(int(shape[i] * factors[axis]) for i, axis in enumerate(order))
    else:
        raise refuse(rules.UNKNOWN, node.name, "its size is computed at run time")
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow) and out[timing.axis] != shape[timing.axis]:
        times, rest = divmod(out[timing.axis], shape[timing.axis])
        if rest or not _repeats(walk, node):
            raise refuse(
                rules.RESIZE, node.name, f"{shape[timing.axis]} frames become {out[timing.axis]}"
            )
        timing = replace(
            timing,
            clean=timing.delay == 0,
            rate=timing.rate * times,
            delay=timing.delay * times,
            valid=timing.valid * times,
            warmup=timing.warmup * times,
        )
    walk.put(node.outputs[0], out, timing, node)


def _repeats(walk: Walk, node: Node) -> bool:
    """Whether a Resize by a whole factor repeats frames, at every length of the sequence."""
    sizes = walk.constant(node, 3)
    return (sizes is None or not sizes.size) and (
        text(node, "mode", "nearest"),
        text(node, "coordinate_transformation_mode", "half_pixel"),
        text(node, "nearest_mode", "round_prefer_floor"),
    ) == ("nearest", "asymmetric", "floor")


def whole_sequence(walk: Walk, node: Node) -> None:
    """Operators that see all frames whatever their attributes say."""
    rule = rules.ATTENTION if node.op_type == "Attention" else rules.NORMALIZATION
    walk.refuse_flow(rule, node, f"{node.op_type} sees all frames")
    walk.put(node.outputs[0], walk.shape[node.inputs[0]], _still(walk, node), node)


def against_time(walk: Walk, node: Node) -> None:
    """Reverse a sequence."""
    walk.refuse_flow(rules.REVERSED, node, "it reverses frames")
    walk.put(node.outputs[0], walk.shape[node.inputs[0]], walk.timing_of(node, 0), node)


HANDLERS: dict[str, Callable[[Walk, Node], None]] = {
    "Gemm": gemm,
    "MatMul": matmul,
    **dict.fromkeys(REDUCTIONS, reduce),
    **dict.fromkeys((*ONE_AXIS, *TO_THE_END), normalize),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), global_pool),
    "Resize": resize,
    "ReverseSequence": against_time,
    **dict.fromkeys(WHOLE, whole_sequence),
}
