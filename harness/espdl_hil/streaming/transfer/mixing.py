"""Operators that mix along an axis; none of them may mix frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.graph import integer, text
from espdl_hil.streaming.timing import Flow, Tail, Timing
from espdl_hil.streaming.transfer.layout import node_axes
from espdl_hil.streaming.transfer.pointwise import align_inputs

if TYPE_CHECKING:
    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
TO_THE_END = ("LayerNormalization", "RMSNormalization")
WHOLE = {  # what sees all frames, whatever its attributes say; ESP-DL has not all of them
    "Attention": rules.ATTENTION,
    "GlobalAveragePool": rules.GLOBAL_POOL,
    "GlobalMaxPool": rules.GLOBAL_POOL,
    "GroupNormalization": rules.NORMALIZATION,
    "InstanceNormalization": rules.NORMALIZATION,
    "ReverseSequence": rules.REVERSED,
}
ONE_AXIS = ("LogSoftmax", "LpNormalization", "Softmax")


def gemm(walk: Walk, node: Node) -> None:
    """Matrix product with a constant: ``(M, K)`` with a filter stored as ``(1, 1, K, N)``."""
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow) and timing.axis == len(walk.shape[node.inputs[0]]) - 1:
        raise refuse(rules.NOT_TIME, node.name, "its features lie along frame_axis")
    if isinstance(timing, Tail):
        timing = replace(timing, axis=-1)
    walk.put(node, _computed(timing, relu=text(node, "activation", "") == "Relu"))


def matmul(walk: Walk, node: Node) -> None:
    """Matrix product; time may be a row, a column or a batch, but is never summed over."""
    left, right = (walk.shape[name] for name in node.inputs[:2])
    flows = [walk.flow(node, index) for index in (0, 1)]
    if flows[0] and flows[0].axis == len(left) - 1:
        raise refuse(rules.ATTENTION, node.name, "it sums over frames")
    if flows[1] and flows[1].axis == len(right) - 2:
        raise refuse(rules.ATTENTION, node.name, "it sums over frames")
    if flows[0] and flows[1]:
        in_batch = flows[0].axis < len(left) - 2 and flows[1].axis < len(right) - 2
        if not in_batch:
            raise refuse(rules.ATTENTION, node.name, "both operands carry time")
        timing = align_inputs(walk, node, (1,) * max(len(left), len(right)))
    elif flows[0] or flows[1]:
        index = 0 if flows[0] else 1
        if any(isinstance(walk.timing_of(node, i), Tail) for i in (0, 1)):
            raise refuse(rules.NONCAUSAL, node.name, "frames meet a value of the last frames")
        timing = _settled(walk, node, index)
        assert isinstance(timing, Flow)
        missing = max(len(left), len(right)) - len((left, right)[index])
        timing = replace(timing, axis=timing.axis + missing)
    else:
        timing = _still(walk, node)
    walk.put(node, _computed(timing, relu=False))


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
    walk.put(node, _computed(timing, relu=False))


def reduce(walk: Walk, node: Node) -> None:
    """Reduction over some axes."""
    rank = len(walk.shape[node.inputs[0]])
    every = () if integer(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    axes = node_axes(walk, node, rank) or every
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow) and timing.axis in axes:
        raise refuse(
            rules.REDUCTION, node.name, f"it reduces axes {list(axes)}, {timing.axis} is time"
        )
    keep = bool(integer(node, "keepdims", 1))
    if isinstance(timing, Flow | Tail) and timing.axis >= 0 and not keep:
        gone = timing.axis in axes
        shift = sum(axis < timing.axis for axis in axes)
        timing = replace(timing, axis=-1 if gone else timing.axis - shift)
    walk.put(node, _computed(timing, relu=False))


def resize(walk: Walk, node: Node) -> None:
    """Resize; in time it may only repeat frames."""
    timing = _settled(walk, node, 0)
    if isinstance(timing, Flow):
        before, after = (walk.shape[n][timing.axis] for n in (node.inputs[0], node.outputs[0]))
        times, rest = divmod(after, before)
        if after != before:
            if rest or not _repeats(walk, node):
                raise refuse(rules.RESIZE, node.name, f"{before} frames become {after}")
            past = timing.past + Fraction(times - 1, times) / timing.rate
            clean = timing.delay == 0
            timing = replace(timing.repeated(times), clean=clean, past=past)
    walk.put(node, timing)


def _repeats(walk: Walk, node: Node) -> bool:
    """Whether a Resize by a whole factor repeats frames, at every length of the sequence."""
    sizes = walk.constant(node, 3)
    return (sizes is None or not sizes.size) and (
        text(node, "mode", "nearest"),
        text(node, "coordinate_transformation_mode", "half_pixel"),
        text(node, "nearest_mode", "round_prefer_floor"),
    ) == ("nearest", "asymmetric", "floor")


def whole_sequence(walk: Walk, node: Node) -> None:
    """Operators of ``WHOLE`` behind the last frames, or away from time."""
    walk.put(node, walk.timing_of(node, 0))


HANDLERS = {
    "Gemm": gemm,
    "MatMul": matmul,
    **dict.fromkeys((f"Reduce{kind}" for kind in REDUCTIONS), reduce),
    **dict.fromkeys((*ONE_AXIS, *TO_THE_END), normalize),
    "Resize": resize,
    **dict.fromkeys(("GlobalAveragePool", "ReverseSequence"), whole_sequence),
}
