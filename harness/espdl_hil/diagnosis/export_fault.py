"""The device computes the streaming artifact rightly, and yet it is not the offline model.

Lint has passed the export before anything ran, so this is what lint does not see. Both models are
compared tensor by tensor on the host: the first node whose stream is not a slice of its offline
run is at fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.diagnosis.cause import Cause, Explanation, Place, counted
from espdl_hil.diagnosis.replay import HostRun
from espdl_hil.operators import code_by_size
from espdl_hil.streaming.names import is_made_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from espdl_hil.compare import Array
    from espdl_hil.diagnosis.mismatch import Mismatch, Offline
    from espdl_hil.espdl import Graph, Node


@dataclass(frozen=True)
class Timeline:
    """One tensor of both models, time on the first axis.

    Attributes:
        name: The tensor.
        stream: All chunks, joined.
        offline: The offline run.
        per_chunk: Frames of one chunk.
    """

    name: str
    stream: Array
    offline: Array
    per_chunk: int

    def wrong_frames(self, latency: int) -> Array:
        """Frames of the stream that are not the offline frame *latency* earlier."""
        frames = min(len(self.stream) - latency, len(self.offline))
        wrong = self.stream[latency : latency + frames] != self.offline[:frames]
        found: Array = np.flatnonzero(wrong.reshape(frames, -1).any(1)) + latency
        return found

    def place(self, graph: Graph, node: Node, frame: int) -> Place:
        """Where *frame* differs, as the place of a fault."""
        differs = self.stream[frame] != self.offline[min(frame, len(self.offline) - 1)]
        channel = int(np.argmax(differs.reshape(-1, differs.shape[-1]).any(0)))
        where = Place.at(graph, node, self.name, frame // self.per_chunk)
        return replace(where, frame=frame, channel=channel)


def explain_export(mismatch: Mismatch, offline: Offline) -> tuple[Place, Explanation]:
    """Find the node at which the stream leaves the offline model, and what is different about it.

    The device agrees with the interpreter of the streaming file.
    """
    checked: list[str] = []
    for node, line in _timelines(mismatch, offline):
        latencies = range(min(offline.latency_frames, len(line.stream) - 1) + 1)
        wrong = min((line.wrong_frames(latency) for latency in latencies), key=len)
        if len(wrong) and wrong[-1] >= offline.warmup_frames + offline.latency_frames:
            are = "is" if len(wrong) == 1 else "are"
            facts = (
                f"{counted(len(wrong), 'frame')} of its stream {are} no slice of the offline run",
                *_differences(mismatch.graph, offline.graph, node),
                _sliced(checked, " before it"),
            )
            return line.place(mismatch.graph, node, int(wrong[0])), Explanation(Cause.EXPORT, facts)
        checked.append(line.name)
    first = mismatch.verdict.first
    where = Place() if first is None else Place(first.chunk, first.frame, first.channel)
    return where, _nothing_wrong(mismatch, checked)


def _timelines(mismatch: Mismatch, offline: Offline) -> Iterator[tuple[Node, Timeline]]:
    """Every tensor that both models have and that has time, in order of execution.

    What the chip itself makes of another size is no fault of the export.
    """
    target, sized = mismatch.target, code_by_size(offline.graph, mismatch.target)
    whole = HostRun(offline.graph, target, {}, sized).trace([offline.inputs])[0]
    host = HostRun(mismatch.graph, target, mismatch.state, sized)
    steps = host.trace(mismatch.chunks)
    for node in mismatch.graph.nodes:
        for name in node.outputs:
            if name in whole and name in steps[0] and not is_made_up(name):
                line = _timeline(name, [step[name] for step in steps], whole[name])
                if line is not None:
                    yield node, line


def _timeline(name: str, chunks: Sequence[Array], offline: Array) -> Timeline | None:
    shape = chunks[0].shape
    axes = [i for i, (a, b) in enumerate(zip(shape, offline.shape, strict=False)) if a != b]
    if len(shape) != offline.ndim or len(axes) > 1 or chunks[0].dtype != offline.dtype:
        return None
    if not axes and len(chunks) > 1:
        return None  # no time: the tail of a model that keeps its last frames
    axis = axes[0] if axes else min(1, offline.ndim - 1)
    stream = np.concatenate([np.moveaxis(chunk, axis, 0) for chunk in chunks])
    return Timeline(name, stream, np.moveaxis(offline, axis, 0), shape[axis])


def _nothing_wrong(mismatch: Mismatch, checked: Sequence[str]) -> Explanation:
    """Both models agree in every tensor, so the fault is in what was compared."""
    fact = f"device and interpreter agree, and {_sliced(checked)}"
    if all(info.name in checked for info in mismatch.graph.outputs):
        what = "the outputs are among them: the device's own offline run must be wrong"
        step = "compare the device's offline run with the interpreter's"
        return Explanation(Cause.UNEXPLAINED, (fact, what), next_step=step)
    what = "only outputs that are no slices of the offline run can differ: their alignment is wrong"
    return Explanation(Cause.EXPORT, (fact, what))


def _sliced(checked: Sequence[str], where: str = "") -> str:
    are = "is a slice" if len(checked) == 1 else "are slices"
    return f"{counted(len(checked), 'tensor')}{where} {are} of the offline run"


def _differences(graph: Graph, offline: Graph, node: Node) -> Iterator[str]:
    """What is different about a node in the two files; constants were found equal at the export."""
    twin = next((other for other in offline.nodes if other.name == node.name), None)
    theirs = twin.attributes if twin is not None else {}
    for name in sorted({*node.attributes, *theirs}) if twin is not None else ():
        pair = node.attributes.get(name), theirs.get(name)
        if not _same(*pair):
            yield f"{name} is {pair[0]} in the streaming file, {pair[1]} in the offline file"
    for cache in graph.nodes:
        if cache.op_type == "StreamingCache" and not {*cache.outputs}.isdisjoint(node.inputs):
            window = cache.attributes.get("window_size")
            yield f"its input comes through {cache.name}, window {window}"


def _same(ours: Any, theirs: Any) -> bool:
    return isinstance(ours, int | float | str | tuple | None) and ours == theirs
