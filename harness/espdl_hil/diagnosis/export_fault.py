"""The device computes the streaming artifact rightly, and yet it is not the offline model.

Compares the two models tensor by tensor on the host. The first node whose stream is not a slice of
its offline run is at fault; the causes are those of an export or a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.diagnosis.cause import Cause, Explanation, Place
from espdl_hil.diagnosis.replay import Stream, activations, cut_node, run_steps
from espdl_hil.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from espdl_hil.diagnosis.mismatch import Array, Case, Offline
    from espdl_hil.espdl import Graph, Node

GENERATED = "PPQ_Variable_"  # names that the exporter counts out anew for each file
# rules of harness/espdl_hil/streaming
PHASE, STATE_DROPPED, STATE_EXPONENT = "S120", "S130", "S131"
MISSING_CACHE, PADDED_CHUNKS = "S201", "S206"
CAUSE_OF_RULE = {  # those that have a cause of their own
    PHASE: Cause.PHASE,
    STATE_DROPPED: Cause.DROPPED,
    STATE_EXPONENT: Cause.EXPONENT,
}


@dataclass(frozen=True)
class Strand:
    """One tensor of both models, time on one axis.

    Attributes:
        name: The tensor.
        axis: Its time axis.
        stream: All chunks, joined on *axis*.
        offline: The offline run.
        per_chunk: Frames of one chunk.
    """

    name: str
    axis: int
    stream: Array
    offline: Array
    per_chunk: int

    def wrong_frames(self, latency: int) -> Array:
        """Frames of the stream that are not the offline frame *latency* earlier."""
        frames = min(self.stream.shape[self.axis] - latency, self.offline.shape[self.axis])
        stream = np.moveaxis(self.stream, self.axis, 0)[latency : latency + frames]
        offline = np.moveaxis(self.offline, self.axis, 0)[:frames]
        wrong = (stream != offline).reshape(frames, -1).any(1)
        found: Array = np.flatnonzero(wrong) + latency
        return found


class Twins:
    """The streaming model and the offline model, both traced on the host.

    Args:
        case: With an offline model.
        offline: That model.
    """

    def __init__(self, case: Case, offline: Offline) -> None:
        self.case = case
        self.offline = offline
        alone = replace(case, graph=offline.graph, chunks=[offline.inputs], state={})
        self.whole = Stream(alone).trace([offline.inputs])[0]
        self.steps = Stream(case).trace(case.chunks)

    def strands(self) -> Iterator[tuple[Node, Strand]]:
        """Every tensor that both have and that has time, in order of execution."""
        for node in self.case.graph.nodes:
            for name in node.outputs:
                if name in self.whole and name in self.steps[0] and GENERATED not in name:
                    strand = _strand(name, [step[name] for step in self.steps], self.whole[name])
                    if strand is not None:
                        yield node, strand

    def twin(self, node: Node) -> Node | None:
        """The same node in the offline model."""
        return next((n for n in self.offline.graph.nodes if n.name == node.name), None)

    def pieces(self, names: Sequence[str]) -> list[dict[str, Array]] | None:
        """Offline values of tensors, cut into chunks along their time axes."""
        count = len(self.steps)
        pieces: list[dict[str, Array]] = [{} for _ in range(count)]
        for name in names:
            whole, step = self.whole.get(name), self.steps[0].get(name)
            if whole is None or step is None or whole.ndim != step.ndim:
                return None
            sizes = zip(step.shape, whole.shape, strict=True)
            axis = next((i for i, (a, b) in enumerate(sizes) if a != b), None)
            if axis is None or step.shape[axis] * count > whole.shape[axis]:
                return None
            frames = step.shape[axis]
            for i, piece in enumerate(pieces):
                index = (slice(None),) * axis + (slice(i * frames, (i + 1) * frames),)
                piece[name] = np.ascontiguousarray(whole[index])
        return pieces


def _strand(name: str, chunks: Sequence[Array], offline: Array) -> Strand | None:
    shape = chunks[0].shape
    axes = [i for i, (a, b) in enumerate(zip(shape, offline.shape, strict=False)) if a != b]
    if len(shape) != offline.ndim or len(axes) > 1 or chunks[0].dtype != offline.dtype:
        return None
    if not axes and len(chunks) > 1:
        return None  # no time: the tail of a model that keeps its last frames
    axis = axes[0] if axes else min(1, offline.ndim - 1)
    return Strand(name, axis, np.concatenate(chunks, axis=axis), offline, shape[axis])


def explain_plan(case: Case) -> tuple[Place, Explanation]:
    """Find the node at which the stream leaves the offline model, and why.

    Args:
        case: With an offline model; the device agrees with the interpreter.
    """
    assert case.offline is not None
    offline = case.offline
    twins = Twins(case, offline)
    checked: list[str] = []
    for node, strand in twins.strands():
        wrong = min(
            (strand.wrong_frames(latency) for latency in _latencies(offline, strand)), key=len
        )
        if len(wrong) and wrong[-1] >= offline.warmup_frames + offline.latency_frames:
            place = _place(node, strand, wrong)
            found = _explain(twins, node, strand, wrong)
            fact = f"{len(checked)} tensors before it are slices of their offline run"
            return place, replace(found, evidence=(*found.evidence, fact))
        checked.append(strand.name)
    first = case.verdict.first
    where = Place() if first is None else Place(first.chunk, first.frame, first.channel)
    return where, _by_findings(case, None) or _nothing_wrong(case, checked)


def _latencies(offline: Offline, strand: Strand) -> range:
    longest = min(offline.latency_frames, strand.stream.shape[strand.axis] - 1)
    return range(longest + 1)


def _nothing_wrong(case: Case, checked: Sequence[str]) -> Explanation:
    """Both models agree in every tensor, so the fault is in what was compared."""
    fact = f"device and interpreter agree, and {len(checked)} tensors are slices of the offline run"
    if all(info.name in checked for info in case.graph.outputs):
        what = "the outputs are among them: the device's own offline run must be wrong"
        step = "compare the device's offline run with the interpreter's"
        return Explanation(Cause.UNEXPLAINED, (fact, what), next_step=step)
    what = "only outputs that are no slices of the offline run can differ: their alignment is wrong"
    return Explanation(Cause.EXPORT, (fact, what))


def _place(node: Node, strand: Strand, wrong: Array) -> Place:
    frame = int(wrong[0])
    stream = np.moveaxis(strand.stream, strand.axis, 0)[frame]
    offline = np.moveaxis(strand.offline, strand.axis, 0)
    same = offline[min(frame, len(offline) - 1)]
    last = stream.reshape(-1, stream.shape[-1]) != same.reshape(-1, stream.shape[-1])
    channel = int(np.argmax(last.any(0)))
    chunk = frame // strand.per_chunk
    return Place(chunk, frame, channel, node.op_type, node.name, strand.name)


def _explain(twins: Twins, node: Node, strand: Strand, wrong: Array) -> Explanation:
    case, offline = twins.case, twins.offline
    return (
        _by_findings(case, node)
        or _by_constants(case.graph, offline.graph, node)
        or _by_phase(case, offline, strand)
        or _pads_each_chunk(case.graph, node, strand)
        or _no_memory(twins, node, strand)
        or _by_warm_up(offline, strand, wrong)
        or _by_attributes(case.graph, twins.twin(node), node, wrong)
    )


def _by_findings(case: Case, node: Node | None) -> Explanation | None:
    """What lint says of this node, of what feeds it, or at all."""
    names = _neighbourhood(case.graph, node) if node else set()
    findings = case.facts.findings
    for finding in sorted(findings, key=lambda f: f.node not in names):
        if node is None or finding.node in names:
            cause = CAUSE_OF_RULE.get(finding.rule, Cause.EXPORT)
            facts = (f"{finding.node}: {finding.text}",)
            return Explanation(cause, facts, rule=finding.rule, next_step=finding.edit)
    return None


def _neighbourhood(graph: Graph, node: Node) -> set[str]:
    """The node and the caches and companions in front of it, by node and tensor name."""
    makers = {name: maker for maker in graph.nodes for name in maker.outputs}
    names = {node.name, *node.outputs, *node.inputs}
    for source in node.inputs:
        maker = makers.get(source)
        if maker is not None:
            names |= {maker.name, *maker.inputs}
    return names


def _by_constants(graph: Graph, offline: Graph, node: Node) -> Explanation | None:
    """Weights, tables or exponents that are not those of the offline model."""
    constants = [*node.inputs, str(node.attributes.get("lut", ""))]
    for name in constants:
        ours, theirs = (g.initializers.get(name) for g in (graph, offline))
        if ours is None or theirs is None:
            continue
        if ours.info.exponents != theirs.info.exponents:
            return _other_exponent(name, ours.info.exponents, theirs.info.exponents)
        same_size = ours.raw.shape == theirs.raw.shape
        if ours.info.dtype != np.int64 and same_size and not np.array_equal(ours.raw, theirs.raw):
            count = int((ours.raw != theirs.raw).sum())
            cause = Cause.LUT if name == node.attributes.get("lut") else Cause.WEIGHTS
            fact = f"{count} of {ours.raw.size} elements of {name} differ between the two files"
            return Explanation(cause, (fact,))
    for name in (*node.outputs, *activations(graph, node)):
        if name in graph.value_info and name in offline.value_info:
            ours_e, theirs_e = (g.value_info[name].exponents for g in (graph, offline))
            if ours_e != theirs_e:
                return _other_exponent(name, ours_e, theirs_e)
    return None


def _other_exponent(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Explanation:
    pair = next((a, b) for a, b in zip(ours, theirs, strict=False) if a != b)
    fact = f"{name} has exponent {pair[0]} in the streaming file, {pair[1]} in the offline file"
    return Explanation(Cause.EXPONENT, (fact,))


def _by_phase(case: Case, offline: Offline, strand: Strand) -> Explanation | None:
    """The chunk does not hold whole strides."""
    stride = offline.total_stride
    frames = _chunk_frames(case, offline)
    if stride < 2 or frames % stride == 0:
        return None
    fact = (
        f"{frames} frames a chunk are no multiple of the total stride {stride}: {strand.name} "
        f"yields {strand.per_chunk} frames a chunk"
    )
    return Explanation(Cause.PHASE, (fact,), rule=PHASE)


def _chunk_frames(case: Case, offline: Offline) -> int:
    """Frames of the first input that has time."""
    for name, tensor in case.chunks[0].items():
        for mine, whole in zip(tensor.shape, offline.inputs[name].shape, strict=False):
            if mine != whole:
                return int(mine)
    return 0  # one chunk holds the whole stimulus


def _pads_each_chunk(graph: Graph, node: Node, strand: Strand) -> Explanation | None:
    """Zeros before every chunk where the frames of the chunk before should be."""
    pads = node.attributes.get("pads")
    if not isinstance(pads, tuple) or any(_caches(graph, node)):
        return None
    spatial = strand.axis - 1
    if not 0 <= spatial < len(pads) // 2 or not pads[spatial]:
        return None
    fact = f"{pads[spatial]} zero frames are put before every chunk: no cache feeds this node"
    return Explanation(Cause.EXPORT, (fact,), rule=PADDED_CHUNKS)


def _no_memory(twins: Twins, node: Node, strand: Strand) -> Explanation | None:
    """The offline node, run on each chunk alone, gives what the stream gives."""
    case, twin = twins.case, twins.twin(node)
    graph = twins.offline.graph
    pieces = twins.pieces(activations(graph, twin)) if twin else None
    if twin is None or pieces is None:
        return None
    chunks = np.split(strand.stream, len(pieces), axis=strand.axis)
    alone = cut_node(graph, twin, {**pieces[0], strand.name: chunks[0]})
    try:
        results = run_steps(case.load, alone, case.target, pieces, strand.name)
    except HarnessError:
        return None
    if not all(np.array_equal(a, b) for a, b in zip(results, chunks, strict=True)):
        return None
    fact = "each chunk is computed as if nothing came before it"
    if node.op_type in ("GRU", "LSTM"):
        return Explanation(Cause.DROPPED, (fact,), rule=STATE_DROPPED)
    return Explanation(Cause.EXPORT, (fact,), rule=MISSING_CACHE)


def _by_warm_up(offline: Offline, strand: Strand, wrong: Array) -> Explanation | None:
    """Only the stream's first frames differ: what came before them is padded differently."""
    frames = strand.stream.shape[strand.axis]
    if wrong[-1] * 2 >= frames or wrong[-1] >= 2 * strand.per_chunk + len(wrong):
        return None
    fact = (
        f"only frames {wrong[0]} to {wrong[-1]} of {frames} differ, {offline.warmup_frames} are "
        f"declared: a cold cache is not the padding of the offline node"
    )
    return Explanation(Cause.WARM_UP, (fact,))


def _by_attributes(graph: Graph, twin: Node | None, node: Node, wrong: Array) -> Explanation:
    """What else is different about the node, as evidence for a wrong plan."""
    facts = [f"{len(wrong)} frames of its stream are no slice of the offline run"]
    if twin is not None:
        names = sorted({*node.attributes, *twin.attributes})
        for name in names:
            ours, theirs = node.attributes.get(name), twin.attributes.get(name)
            if not _same(ours, theirs):
                facts.append(
                    f"{name} is {ours} in the streaming file, {theirs} in the offline file"
                )
    facts += _caches(graph, node)
    return Explanation(Cause.EXPORT, tuple(facts))


def _same(ours: Any, theirs: Any) -> bool:
    return isinstance(ours, int | float | str | tuple | None) and ours == theirs


def _caches(graph: Graph, node: Node) -> Iterator[str]:
    makers: Mapping[str, Node] = {name: maker for maker in graph.nodes for name in maker.outputs}
    for source in node.inputs:
        maker = makers.get(source)
        if maker is not None and maker.op_type == "StreamingCache":
            window = maker.attributes.get("window_size")
            yield f"its input comes through {maker.name}, window {window}"
