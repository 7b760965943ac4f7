"""State of one walk over an offline graph: what transfer functions ask, and what they record."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from espdl_hil.operators import output_shapes
from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.plan import AttributeEdit, ConstantEdit, Insertion, NewNode, Value
from espdl_hil.streaming.timing import STILL, Flow, Shape, Timing, outer_size, with_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from espdl_hil.streaming.clock import Clock
    from espdl_hil.streaming.findings import Finding, Rule
    from espdl_hil.streaming.graph import NeutralGraph, Node

END = 2**31 - 1  # "to the end" of a Slice: ESP-DL truncates int64 to int32, then clamps


class Walk:
    """State of one walk.

    Attributes:
        graph: The offline graph.
        clock: What a chunk is.
        shape: Offline shape by tensor name, in the file's layout; complete for all tensors
            up to the outputs of the current node, but for those whose timing is opaque.
        timing: Timing by tensor name; complete for all tensors before the current node.
        tails: Slices that keep the last frames, however many they keep.
        trims: Slices up to the last frame that were taken for the trimming of padding.
        stride: Chunks must be a multiple of this.
        insertions, attribute_edits, constant_edits, removals: As in ``StreamingPlan``.
        offline_edits, offline_insertions, notes: As in ``Analysis``.
        cache_bytes: Bytes that all caches hold between chunks.
    """

    def __init__(
        self, graph: NeutralGraph, clock: Clock, tails: frozenset[str] = frozenset()
    ) -> None:
        clock.check(graph)
        self.graph = graph
        self.clock = clock
        self.tails = tails
        self.trims: list[str] = []
        self.shape: dict[str, Shape] = {name: c.shape for name, c in graph.constants.items()}
        self.timing: dict[str, Timing] = dict.fromkeys(graph.constants, STILL)
        self.stride = 1
        self.insertions: list[Insertion] = []
        self.attribute_edits: list[AttributeEdit] = []
        self.constant_edits: list[ConstantEdit] = []
        self.removals: list[str] = []
        self.offline_edits: list[ConstantEdit] = []
        self.offline_insertions: list[Insertion] = []
        self.notes: list[Finding] = []
        self.cache_bytes = 0
        for name in graph.inputs:
            shape, axis = graph.shapes[name], clock.frame_axes.get(name)
            self.shape[name], self.timing[name] = shape, STILL
            if axis is not None:
                rate = Fraction(clock.chunk_frames[name], clock.chunk)
                self.stride = math.lcm(self.stride, rate.denominator)
                field = max(1 / rate, Fraction(1))
                self.timing[name] = Flow(axis, rate, 0, shape[axis], field=field)

    # -- what is asked

    def timing_of(self, node: Node, index: int) -> Timing:
        """The timing of an input; missing optional inputs do not change with time."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self.timing[name] if name else STILL

    def flow(self, node: Node, index: int) -> Flow | None:
        """The timing of an input if it gains frames with every chunk, else None."""
        timing = self.timing_of(node, index)
        return timing if isinstance(timing, Flow) else None

    def constant(self, node: Node, index: int) -> NDArray[np.generic] | None:
        """The value of an input, if it is a constant that is there."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self.graph.constants.get(name)

    def frames(self, flow: Flow, node: Node) -> int:
        """Frames of a flow in one chunk.

        Raises:
            StreamingError: it is not a whole number.
        """
        count = flow.rate * self.clock.chunk
        if count.denominator != 1:
            raise refuse(
                rules.PHASE,
                node.name,
                f"a chunk of {self.clock.chunk} frames gives {count} frames here; it must be a "
                f"multiple of {flow.rate.denominator}",
            )
        return count.numerator

    def stream_shape(self, name: str) -> Shape:
        """Shape of a tensor in the streaming graph."""
        shape, timing = self.shape[name], self.timing[name]
        if not isinstance(timing, Flow):
            return shape
        return with_frames(shape, timing.axis, int(timing.rate * self.clock.chunk))

    def prefix_for(self, flow: Flow, frames: int) -> int:
        """Frames of the first input after which *frames* exact frames of a flow exist."""
        return math.ceil((frames + flow.warmup + max(0, flow.delay)) / flow.rate)

    # -- what is recorded

    def infer(self, node: Node) -> None:
        """Record the offline shapes of a node's outputs.

        Raises:
            NodeProblem: ESP-DL cannot run the node.
        """
        given = [self.shape[name] if name else None for name in node.inputs]
        found = output_shapes(node, given, self.graph.constants)
        self.shape.update(
            (name, shape) for name, shape in zip(node.outputs, found, strict=False) if name
        )

    def put(self, node: Node, timing: Timing) -> None:
        """Record one timing for all outputs."""
        for index in range(len(node.outputs)):
            self.put_output(node, index, timing)

    def put_output(self, node: Node, index: int, timing: Timing) -> None:
        """Record the timing of one output."""
        name = node.outputs[index]
        if not name:
            return
        if isinstance(timing, Flow):
            self.frames(timing, node)
            self.stride = math.lcm(self.stride, timing.rate.denominator)
            timing = replace(timing, warmup=min(timing.warmup, self.shape[name][timing.axis]))
        self.timing[name] = timing

    def edit_attribute(self, node: Node, attribute: str, value: Value) -> None:
        """Set an attribute, unless it has that value."""
        if node.attributes.get(attribute) != value:
            self.attribute_edits.append(AttributeEdit(node.name, attribute, value))

    def edit_constant(self, node: Node, index: int, values: Sequence[int]) -> None:
        """Replace the int64 vector at an input, unless it has these values."""
        self._edit(self.constant_edits, node, index, values)

    def edit_offline(self, node: Node, index: int, values: Sequence[int]) -> None:
        """Replace it in the offline graph, with values that hold at any length."""
        self._edit(self.offline_edits, node, index, values)

    def _edit(
        self, edits: list[ConstantEdit], node: Node, index: int, values: Sequence[int]
    ) -> None:
        before = self.constant(node, index)
        values = tuple(int(value) for value in values)
        if before is None or tuple(before.reshape(-1).tolist()) != values:
            edits.append(ConstantEdit(node.name, index, values))

    def remove(self, node: Node) -> bool:
        """Take a node out that passes its first input on as it is.

        Returns:
            False if it has to stay: its output is a graph output, or has another exponent.
        """
        exponents = self.graph.exponents
        same = exponents.get(node.inputs[0]) == exponents.get(node.outputs[0])
        if node.outputs[0] in self.graph.outputs or not same:
            return False
        self.removals.append(node.name)
        return True

    def insert_cache(self, node: Node, index: int, held: int, drop: int = 0) -> None:
        """Put a cache in front of an input.

        ::

            frame axis first:  x > StreamingCache > Slice [:-drop] > node
            elsewhere:         x > Transpose > StreamingCache > Slice > Transpose > node

        A cache copies bytes flatly, which is a concat only where all axes before the frame
        axis have size 1.

        Args:
            node: The consumer.
            index: Which of its inputs; a flow.
            held: Frames that the cache keeps from chunk to chunk; 0 for no cache.
            drop: Last frames that the consumer is not to see.
        """
        flow = self.flow(node, index)
        assert flow is not None
        if held == 0:
            return
        name = node.inputs[index]
        stem = f"{name}_{node.name}_{index}"
        shape, axis = self.stream_shape(name), flow.axis
        moved = outer_size(shape, axis) > 1
        order = (axis, *(other for other in range(len(shape)) if other != axis))
        chain: list[NewNode] = []
        if moved:
            shape, axis = tuple(shape[a] for a in order), 0
            chain.append(NewNode(f"{stem}_front", "Transpose", {"perm": order}, (), shape))
        frames = shape[axis] + held
        shape = with_frames(shape, axis, frames)
        window: dict[str, Value] = {"window_size": held + 1, "frame_axis": axis}
        chain.append(NewNode(f"{stem}_cache", "StreamingCache", window, (), shape))
        size = self.graph.itemsizes.get(name, 1)
        self.cache_bytes += math.prod(shape) // frames * held * size
        if drop:
            shape = with_frames(shape, axis, frames - drop)
            bounds = ((0,), (-drop,), (axis,), (1,))
            chain.append(NewNode(f"{stem}_first", "Slice", {}, bounds, shape))
        if moved:
            back = tuple(order.index(a) for a in range(len(order)))
            shape = tuple(shape[a] for a in back)
            chain.append(NewNode(f"{stem}_back", "Transpose", {"perm": back}, (), shape))
        self.insertions.append(Insertion(name, node.name, index, tuple(chain)))

    def keep_last(self, node: Node, index: int, frames: int) -> None:
        """Put a Slice of the last frames in front of an input, offline and in the stream."""
        name = node.inputs[index]
        shape, flow = self.shape[name], self.flow(node, index)
        assert flow is not None
        shape = with_frames(shape, flow.axis, frames)
        bounds = ((-frames,), (END,), (flow.axis,), (1,))
        last = NewNode(f"{name}_{node.name}_{index}_last", "Slice", {}, bounds, shape)
        insertion = Insertion(name, node.name, index, (last,))
        self.insertions.append(insertion)
        self.offline_insertions.append(insertion)

    def delay(self, node: Node, index: int, target: int) -> Flow:
        """Let an input lag the offline model by *target* frames, with a delay line if need be.

        Returns:
            The timing that the node sees.
        """
        flow = self.flow(node, index)
        assert flow is not None
        missing = target - flow.delay
        self.insert_cache(node, index, missing, drop=missing)
        return replace(flow, delay=target)

    # -- refusals

    def refuse_flow(self, rule: Rule, node: Node, message: str) -> None:
        """Refuse if any input gains frames with time."""
        if any(self.flow(node, index) for index in range(len(node.inputs))):
            raise refuse(rule, node.name, message)

    def require_causal(self, name: str, flow: Flow) -> None:
        """Refuse if frames of a tensor depend on padding after the last frame."""
        surplus = self.shape[name][flow.axis] - flow.valid
        if surplus > 0:
            raise refuse(
                rules.NONCAUSAL,
                flow.padded_by,
                f"the last {surplus} frame(s) of {name} depend on padding after the last frame",
            )
