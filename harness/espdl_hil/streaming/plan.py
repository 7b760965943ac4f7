"""A streaming plan as data: what to change in an offline graph, and what then holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Value: TypeAlias = "int | str | tuple[int, ...]"


@dataclass(frozen=True)
class NewNode:
    """One node that the plan adds.

    Attributes:
        name: Unique; derived from the tensor and the consumer.
        op_type: ``StreamingCache``, ``Slice`` or ``Transpose``.
        attributes: Attribute name to value.
        constants: The inputs after the first: each an int64 vector.
        shape: Shape of its output, in the file's layout.
    """

    name: str
    op_type: str
    attributes: Mapping[str, Value]
    constants: tuple[tuple[int, ...], ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Insertion:
    """Nodes that the plan puts in front of one input of one node.

    Attributes:
        tensor: What the consumer read before.
        consumer: Name of the node that reads the end of the chain instead.
        input_index: Which of its inputs.
        nodes: The chain, in the order of execution.
    """

    tensor: str
    consumer: str
    input_index: int
    nodes: tuple[NewNode, ...]


@dataclass(frozen=True)
class CacheSpec:
    """One StreamingCache: ``out = concat(last window - 1 frames, chunk)``.

    Attributes:
        tensor: The tensor whose frames are kept.
        consumer: Name of the node that reads them.
        window: Frames; the state holds ``window - 1``.
        frame_axis: Axis of the cache's own input, in the file's layout.
    """

    tensor: str
    consumer: str
    window: int
    frame_axis: int


@dataclass(frozen=True)
class AttributeEdit:
    """Set an attribute of a node of the offline graph."""

    node: str
    attribute: str
    value: Value


@dataclass(frozen=True)
class ConstantEdit:
    """Replace the int64 vector that a node reads at one of its inputs."""

    node: str
    input_index: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Alignment:
    """Which offline elements the chunks of one output are compared with.

    Attributes:
        output: Name of the graph output.
        kind: ``same`` (one frame out per frame in), ``strided`` (fewer), ``upsampled`` (more),
            ``delayed`` (the stream lags), or ``tail``: the output is computed from the last
            frames only, so each chunk is compared with the offline model of its prefix.
        frame_axis: The time axis in the file's layout; -1 for a tail that has none left.
        out_frames_per_chunk: Frames that each chunk yields.
        latency_frames: Output frames by which the stream lags the offline model.
        warmup_frames: Leading offline frames that a cold cache may change.
        offline_frames: Frames of the offline output.
        min_prefix_frames: Frames of the first input from which a tail is defined; a chunk
            that ends earlier has nothing to be compared with. 0 for other kinds.
        window_frames: The offline model of just these last input frames of a prefix gives a tail
            the value that the whole prefix gives it (or a shorter prefix as a whole); frames of
            the first input, a multiple of the plan's ``total_stride``, as prefixes must be. None
            when only the whole prefix will do (behind a recurrence); 0 for other kinds.
        state_input: Graph input that this output feeds; empty when it is no recurrent state.
    """

    output: str
    kind: str
    frame_axis: int
    out_frames_per_chunk: int
    latency_frames: int = 0
    warmup_frames: int = 0
    offline_frames: int = 0
    min_prefix_frames: int = 0
    window_frames: int | None = 0
    state_input: str = ""

    def span(self, chunk: int) -> tuple[range, range]:
        """What one chunk of an output that is no tail is compared with.

        ::

            latency 1, 2 frames a chunk     stream    . 0 | 1 2 | 3 4
            chunk 0 is span(0) = (range(0, 1), range(1, 2)), chunk 1 (range(1, 3), range(0, 2))

        Args:
            chunk: Number of the chunk, from 0.

        Returns:
            Offline frames, and the frames of the chunk that hold them; as many, or none.
        """
        first = chunk * self.out_frames_per_chunk - self.latency_frames
        end = min(first + self.out_frames_per_chunk, self.offline_frames)
        start = max(0, first)
        return range(start, max(start, end)), range(start - first, max(start, end) - first)

    def describe(self) -> str:
        """Say in one line what each chunk is compared with."""
        if self.kind == "tail":
            since = f", from {self.min_prefix_frames} input frames on"
            return (
                f"{self.output}: the last frames only; each chunk against the offline model of "
                f"the frames so far{since if self.min_prefix_frames > 1 else ''}"
            )
        parts = [f"{self.output}: {self.out_frames_per_chunk} frame(s) a chunk ({self.kind})"]
        if self.latency_frames:
            parts.append(f"offline frame m arrives as frame m + {self.latency_frames}")
        if self.warmup_frames:
            parts.append(f"offline frames 0 to {self.warmup_frames - 1} warm up")
        return ", ".join(parts)


@dataclass(frozen=True)
class StreamingPlan:
    """Everything that turns an offline graph into a streaming one.

    Attributes:
        frame_axes: Time axis of each graph input that has one, in the file's layout.
        chunk_frames: Frames of each of these inputs in one chunk.
        insertions: Caches and their companions, one chain per consumer that needs one.
        attribute_edits: Padding that caches replace.
        constant_edits: Slice and Reshape constants that named the offline frame count.
        removals: Nodes that have nothing left to do.
        alignments: One per graph output.
        shapes: Shape of every tensor of the streaming graph that the offline graph has too,
            in the file's layout.
        state: Recurrent state: graph input to the graph output that feeds it.
        receptive_field: Input frames that one output frame depends on; None when unbounded.
        total_stride: Chunks must be a multiple of this.
        state_bytes: Bytes that all caches and recurrent states hold between chunks.
    """

    frame_axes: Mapping[str, int]
    chunk_frames: Mapping[str, int]
    insertions: tuple[Insertion, ...]
    attribute_edits: tuple[AttributeEdit, ...]
    constant_edits: tuple[ConstantEdit, ...]
    removals: tuple[str, ...]
    alignments: tuple[Alignment, ...]
    shapes: Mapping[str, tuple[int, ...]]
    state: Mapping[str, str] = field(default_factory=dict)
    receptive_field: int | None = 1
    total_stride: int = 1
    state_bytes: int = 0

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """Every cache that the plan inserts."""
        return tuple(
            CacheSpec(
                chain.tensor,
                chain.consumer,
                _number(node, "window_size"),
                _number(node, "frame_axis"),
            )
            for chain in self.insertions
            for node in chain.nodes
            if node.op_type == "StreamingCache"
        )

    @property
    def warmup_frames(self) -> int:
        """The longest warm-up of any output, in frames of that output."""
        return max((alignment.warmup_frames for alignment in self.alignments), default=0)

    @property
    def latency_frames(self) -> int:
        """The longest latency of any output, in frames of that output."""
        return max((alignment.latency_frames for alignment in self.alignments), default=0)

    def to_json(self) -> str:
        """Write the plan as JSON text; ``from_json`` reads it back equal."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> StreamingPlan:
        """Read what ``to_json`` wrote."""
        data = _with_tuples(json.loads(text))
        return StreamingPlan(
            **{
                **data,
                "insertions": tuple(_insertion(entry) for entry in data["insertions"]),
                "attribute_edits": tuple(AttributeEdit(**e) for e in data["attribute_edits"]),
                "constant_edits": tuple(ConstantEdit(**e) for e in data["constant_edits"]),
                "alignments": tuple(Alignment(**entry) for entry in data["alignments"]),
            }
        )


def _number(node: NewNode, attribute: str) -> int:
    value = node.attributes[attribute]
    assert isinstance(value, int)
    return value


def _insertion(data: Mapping[str, Any]) -> Insertion:
    return Insertion(**{**data, "nodes": tuple(NewNode(**node) for node in data["nodes"])})


def _with_tuples(value: Any) -> Any:
    """Parsed JSON with tuples for lists, as the dataclasses hold them."""
    if isinstance(value, dict):
        return {key: _with_tuples(entry) for key, entry in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
