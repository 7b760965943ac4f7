"""Where caches go: one walk over the offline graph, operator by operator."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.streaming import rules
from harness.streaming.ops import HANDLERS
from harness.streaming.plan import (
    Alignment,
    AttributeEdit,
    ConstantEdit,
    Insertion,
    NewNode,
    StreamingPlan,
    Value,
)
from harness.streaming.rules import refuse
from harness.streaming.timing import STILL, Flow, Shape, Still, Tail, Timing, outer_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from harness.streaming.graph import NeutralGraph, Node


def plan_streaming(
    graph: NeutralGraph,
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int] | int,
    state: Mapping[str, str] | None = None,
) -> StreamingPlan:
    """Plan how an offline graph runs chunk by chunk with the same results.

    Args:
        graph: The offline graph.
        frame_axes: Time axis of each graph input that has one, in the file's layout.
        chunk_frames: Frames of each of these inputs in one chunk, or one number for all.
        state: Recurrent state: graph input to the graph output that feeds it.

    Returns:
        The plan: what to change, and what then holds.

    Raises:
        StreamingError: the model cannot stream as written; names the rule and the node.
        ConfigError: an input or output that the arguments name is not there.
    """
    if isinstance(chunk_frames, int):
        chunk_frames = dict.fromkeys(frame_axes, chunk_frames)
    return Planner(graph, frame_axes, chunk_frames, state or {}).run()


class Planner:
    """State of one walk. Operator handlers read timings and shapes, and record edits.

    Attributes:
        graph: The offline graph.
        shape: Offline shape by tensor name, in the file's layout; complete for all
            tensors before the current node.
        timing: Timing by tensor name, likewise.
        state: Recurrent state: graph input to graph output.
    """

    def __init__(
        self,
        graph: NeutralGraph,
        frame_axes: Mapping[str, int],
        chunk_frames: Mapping[str, int],
        state: Mapping[str, str],
    ) -> None:
        _check_arguments(graph, frame_axes, chunk_frames, state)
        self.graph = graph
        self.state = state
        self.shape: dict[str, Shape] = {name: c.shape for name, c in graph.constants.items()}
        self.timing: dict[str, Timing] = dict.fromkeys(graph.constants, STILL)
        self._frame_axes = dict(frame_axes)
        self._chunk_frames = dict(chunk_frames)
        self._chunk = next(iter(chunk_frames.values()))
        self._insertions: list[Insertion] = []
        self._attribute_edits: list[AttributeEdit] = []
        self._constant_edits: list[ConstantEdit] = []
        self._removals: list[str] = []
        self._state_bytes = 0
        self._stride = 1
        for name in graph.inputs:
            self._put_input(name)

    def run(self) -> StreamingPlan:
        """Walk the graph and return the plan."""
        for node in self.graph.nodes:
            handler = HANDLERS.get(node.op_type)
            if handler is None:
                self.refuse_flow(rules.UNKNOWN, node, f"{node.op_type} is not known")
                self._put_opaque(node)
            else:
                handler(self, node)
        alignments = tuple(self._align_output(name) for name in self.graph.outputs)
        timings = [self.timing[name] for name in self.graph.outputs]
        widest = max((t.field for t in timings if not isinstance(t, Still)), default=Fraction(1))
        return StreamingPlan(
            frame_axes=self._frame_axes,
            chunk_frames=self._chunk_frames,
            insertions=tuple(self._insertions),
            attribute_edits=tuple(self._attribute_edits),
            constant_edits=tuple(self._constant_edits),
            removals=tuple(self._removals),
            alignments=alignments,
            shapes={n: self.stream_shape(n) for n in self.shape if n not in self.graph.constants},
            state=dict(self.state),
            receptive_field=None if widest == math.inf else math.floor(widest),
            total_stride=self._stride,
            state_bytes=self._state_bytes + self._recurrent_bytes(),
        )

    # -- what handlers ask

    def flow(self, node: Node, index: int) -> Flow | None:
        """The timing of an input if it gains frames with every chunk, else None."""
        timing = self.timing_of(node, index)
        return timing if isinstance(timing, Flow) else None

    def timing_of(self, node: Node, index: int) -> Timing:
        """The timing of an input; missing optional inputs do not change with time."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self.timing[name] if name else STILL

    def constant(self, node: Node, index: int) -> NDArray[np.generic] | None:
        """The value of an input, if it is a constant that is there."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self.graph.constants.get(name)

    def frames(self, flow: Flow, node: Node) -> int:
        """Frames of a flow in one chunk.

        Raises:
            StreamingError: it is not a whole number.
        """
        count = flow.rate * self._chunk
        if count.denominator != 1:
            raise refuse(
                rules.PHASE,
                node.name,
                f"a chunk of {self._chunk} frames gives {count} frames here; "
                f"choose a multiple of {flow.rate.denominator}",
            )
        return count.numerator

    def stream_shape(self, name: str) -> Shape:
        """Shape of a tensor in the streaming graph."""
        shape, timing = self.shape[name], self.timing[name]
        if not isinstance(timing, Flow):
            return shape
        frames = int(timing.rate * self._chunk)
        return (*shape[: timing.axis], frames, *shape[timing.axis + 1 :])

    def prefix_for(self, flow: Flow, frames: int) -> int:
        """Frames of the first input after which *frames* exact frames of a flow exist."""
        return math.ceil((frames + flow.warmup + max(0, flow.delay)) / flow.rate)

    # -- what handlers record

    def put(self, name: str, shape: Sequence[int], timing: Timing, node: Node) -> None:
        """Record the offline shape and the timing of an output."""
        if not name:
            return
        self.shape[name] = tuple(shape)
        if isinstance(timing, Flow):
            self.frames(timing, node)
            self._stride = math.lcm(self._stride, timing.rate.denominator)
            timing = replace(timing, warmup=min(timing.warmup, shape[timing.axis]))
        self.timing[name] = timing

    def edit_attribute(self, node: Node, attribute: str, value: Value) -> None:
        """Set an attribute, unless it has that value."""
        if node.attributes.get(attribute) != value:
            self._attribute_edits.append(AttributeEdit(node.name, attribute, value))

    def edit_constant(self, node: Node, index: int, values: Sequence[int]) -> None:
        """Replace the int64 vector at an input, unless it has these values."""
        before = self.constant(node, index)
        values = tuple(int(value) for value in values)
        if before is None or tuple(before.reshape(-1).tolist()) != values:
            self._constant_edits.append(ConstantEdit(node.name, index, values))

    def remove(self, node: Node) -> bool:
        """Take a node out that passes its first input on as it is.

        Returns:
            False if it has to stay: its output is a graph output, or has another exponent.
        """
        exponents = self.graph.exponents
        stays = node.outputs[0] in self.graph.outputs or exponents.get(
            node.inputs[0]
        ) != exponents.get(node.outputs[0])
        if not stays:
            self._removals.append(node.name)
        return not stays

    def insert_cache(self, node: Node, index: int, held: int, keep: int | None = None) -> None:
        """Put a cache in front of an input.

        Args:
            node: The consumer.
            index: Which of its inputs; a flow.
            held: Frames that the cache keeps from chunk to chunk; 0 for no cache.
            keep: First frames of cache and chunk that the consumer sees; None for all.
        """
        flow = self.flow(node, index)
        assert flow is not None
        name = node.inputs[index]
        frames = self.frames(flow, node)
        shape = self.stream_shape(name)
        chain: list[NewNode] = []
        stem = f"{name}_{node.name}_{index}"
        front = outer_size(shape, flow.axis) == 1
        perm = (flow.axis, *(a for a in range(len(shape)) if a != flow.axis))
        axis = flow.axis
        if held > 0 and not front:
            shape, axis = tuple(shape[a] for a in perm), 0
            chain.append(NewNode(f"{stem}_front", "Transpose", {"perm": perm}, (), shape))
        if held > 0:
            shape = (*shape[:axis], frames + held, *shape[axis + 1 :])
            attributes: dict[str, Value] = {"window_size": held + 1, "frame_axis": axis}
            chain.append(NewNode(f"{stem}_cache", "StreamingCache", attributes, (), shape))
            size = math.prod(shape) // (frames + held) * held
            self._state_bytes += size * self.graph.itemsizes.get(name, 1)
        if keep is not None and keep < frames + held:
            shape = (*shape[:axis], keep, *shape[axis + 1 :])
            chain.append(
                NewNode(f"{stem}_first", "Slice", {}, ((0,), (keep,), (axis,), (1,)), shape)
            )
        if held > 0 and not front:
            back = tuple(perm.index(a) for a in range(len(perm)))
            shape = tuple(shape[a] for a in back)
            chain.append(NewNode(f"{stem}_back", "Transpose", {"perm": back}, (), shape))
        if chain:
            self._insertions.append(Insertion(name, node.name, index, tuple(chain)))

    def delay(self, node: Node, index: int, target: int) -> Flow:
        """Let an input lag the offline model by *target* frames, with a delay line if need be.

        Returns:
            The timing that the node sees.
        """
        flow = self.flow(node, index)
        assert flow is not None
        if flow.delay < target:
            self.insert_cache(node, index, target - flow.delay, self.frames(flow, node))
        return flow.delayed(target - flow.delay)

    # -- refusals

    def refuse_flow(self, rule: rules.Rule, node: Node, message: str) -> None:
        """Refuse if any input gains frames with time."""
        if any(self.flow(node, index) for index in range(len(node.inputs))):
            raise refuse(rule, node.name, message)

    def require_causal(self, name: str, flow: Flow) -> None:
        """Refuse if frames of a tensor depend on padding after the last frame."""
        surplus = self.shape[name][flow.axis] - flow.valid
        if surplus > 0:
            raise refuse(
                rules.NONCAUSAL,
                flow.culprit,
                f"the last {surplus} frame(s) of {name} depend on padding after the last frame",
            )

    # -- ends

    def _put_input(self, name: str) -> None:
        shape = self.graph.shapes[name]
        self.shape[name] = shape
        if name not in self._frame_axes:
            self.timing[name] = STILL
            return
        axis = self._frame_axes[name]
        rate = Fraction(self._chunk_frames[name], self._chunk)
        self.timing[name] = Flow(
            axis, rate, 0, shape[axis], field=1 / rate if rate < 1 else Fraction(1)
        )

    def _put_opaque(self, node: Node) -> None:
        """An unknown operator away from time: its shape stays unknown, and nothing needs it."""
        tails = [
            t for t in (self.timing_of(node, i) for i in range(len(node.inputs))) if t != STILL
        ]
        for output in filter(None, node.outputs):
            self.shape[output] = ()
            self.timing[output] = tails[0] if tails else STILL

    def _align_output(self, name: str) -> Alignment:
        timing, shape = self.timing[name], self.shape[name]
        fed = {output: entry for entry, output in self.state.items()}.get(name, "")
        if isinstance(timing, Still):
            return Alignment(name, "tail", -1, 1, offline_frames=1, state_input=fed)
        if isinstance(timing, Tail):
            frames = shape[timing.axis] if timing.axis >= 0 else 1
            return Alignment(
                name, "tail", timing.axis, frames, 0, 0, frames, timing.min_prefix, fed
            )
        self.require_causal(name, timing)
        frames = int(timing.rate * self._chunk)
        return Alignment(
            name,
            _kind(timing),
            timing.axis,
            frames,
            timing.delay,
            timing.warmup,
            shape[timing.axis],
        )

    def _recurrent_bytes(self) -> int:
        return sum(
            math.prod(self.shape[name]) * self.graph.itemsizes.get(name, 1) for name in self.state
        )


def _kind(flow: Flow) -> str:
    if flow.delay > 0:
        return "delayed"
    if flow.rate == 1:
        return "same"
    return "strided" if flow.rate < 1 else "upsampled"


def _check_arguments(
    graph: NeutralGraph,
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int],
    state: Mapping[str, str],
) -> None:
    """Raise ConfigError for names, axes and counts that do not fit the graph."""
    for name in [*frame_axes, *state]:
        if name not in graph.inputs:
            raise ConfigError(f"the graph has no input {name!r}; it has {', '.join(graph.inputs)}")
    for name in state.values():
        if name not in graph.outputs:
            raise ConfigError(
                f"the graph has no output {name!r}; it has {', '.join(graph.outputs)}"
            )
    if not frame_axes:
        raise ConfigError("no input has a frame axis, so there is nothing to stream")
    for name, axis in frame_axes.items():
        shape = graph.shapes[name]
        if not 0 <= axis < len(shape):
            raise ConfigError(f"frame axis {axis} of input {name!r} is outside its shape {shape}")
        chunk = chunk_frames.get(name, 0)
        if not 0 < chunk <= shape[axis]:
            raise ConfigError(
                f"input {name!r}: a chunk of {chunk} frames does not fit {shape[axis]} frames"
            )
