"""Faults of export and plan: the device computes its file rightly, but the file is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil import interpreter
from espdl_hil.diagnosis import Cause
from espdl_hil.diagnosis.mismatch import Facts, Finding
from espdl_hil.espdl import Node, Tensor, TensorInfo
from espdl_hil.streaming import Severity, lint
from faults.kinds import (
    Injection,
    NoPlace,
    Random,
    Register,
    caches,
    linear_nodes,
    offline_of,
    pick,
    rewired,
    with_raw,
)

if TYPE_CHECKING:
    from espdl_hil.espdl import Graph
    from faults.subjects import Subject

KINDS = Register()


def _misplanned(subject: Subject, graph: Graph) -> Injection:
    """Another streaming file than it should be, with what lint says of it."""
    findings = lint(graph, offline_of(subject).graph, state=subject.state)
    errors = (f for f in findings if f.severity is Severity.ERROR)
    facts = Facts(findings=tuple(Finding(f.rule, f.node, f.message, f.edit) for f in errors))
    return Injection(facts=facts, planned=replace(subject, graph=graph))


def _cached_conv(subject: Subject, rng: Random, *, window: int = 2) -> tuple[Node, Node]:
    """A cache on axis 1 of at least *window* frames, and the convolution that it feeds."""
    offline_of(subject)
    graph = subject.graph
    pairs = [
        (cache, next(n for n in graph.nodes if cache.outputs[0] in n.inputs))
        for cache in caches(graph)
        if cache.attributes["frame_axis"] == 1 and cache.attributes["window_size"] >= window
    ]
    return pick(rng, [(cache, conv) for cache, conv in pairs if conv.op_type == "Conv"])


def _with(node: Node, **attributes: object) -> dict[str, object]:
    return {**node.attributes, **attributes}


def _padded(node: Node, frames: int) -> tuple[int, ...]:
    return (frames, *node.attributes["pads"][1:])


@KINDS.kind("cache missing", "plan", Cause.EXPORT)
def cache_missing(subject: Subject, rng: Random) -> Injection:
    """Offline padding instead of a cache, as an export without streaming has it."""
    cache, conv = _cached_conv(subject, rng)
    inputs = tuple(cache.inputs[0] if n == cache.outputs[0] else n for n in conv.inputs)
    pads = _padded(conv, cache.attributes["window_size"] - 1)
    graph = rewired(subject.graph, conv, inputs=inputs, attributes=_with(conv, pads=pads))
    nodes = tuple(n for n in graph.nodes if n.name != cache.name)
    return _misplanned(subject, replace(graph, nodes=nodes))


@KINDS.kind("window too short", "plan", Cause.EXPORT)
def window_short(subject: Subject, rng: Random) -> Injection:
    """A cache that keeps too few frames; the rest is padded with zeros at every chunk."""
    cache, conv = _cached_conv(subject, rng, window=3)
    window = int(cache.attributes["window_size"])
    kept = int(rng.integers(2, window))
    graph = rewired(subject.graph, cache, attributes=_with(cache, window_size=kept))
    pads = _padded(conv, window - kept)
    return _misplanned(subject, rewired(graph, conv, attributes=_with(conv, pads=pads)))


@KINDS.kind("dilation changed", "plan", Cause.EXPORT)
def dilation_changed(subject: Subject, rng: Random) -> Injection:
    """Another dilation in the streaming file, with a cache that fits it."""
    cache, conv = _cached_conv(subject, rng)
    kernel = conv.attributes["kernel_shape"][0]
    first, *rest = conv.attributes["dilations"]
    if kernel < 2:
        raise NoPlace
    first += -1 if first > 1 else 1
    window = (kernel - 1) * first + 1
    graph = rewired(subject.graph, cache, attributes=_with(cache, window_size=window))
    dilations = (first, *rest)
    return _misplanned(subject, rewired(graph, conv, attributes=_with(conv, dilations=dilations)))


@KINDS.kind("operand delayed", "plan", Cause.EXPORT)
def operand_delayed(subject: Subject, rng: Random) -> Injection:
    """One operand of a sum comes a frame late, as behind a cache that is not its own."""
    offline_of(subject)
    graph = subject.graph
    sums = [n for n in graph.nodes if n.op_type in ("Add", "Mul", "Sub")]
    node, index = pick(
        rng, [(n, i) for n in sums for i in (0, 1) if n.inputs[i] in graph.value_info]
    )
    source = node.inputs[index]
    value = interpreter.load(graph, subject.target).trace.get(source)
    if value is None or value.ndim != 3 or value.shape[1] != graph.inputs[0].shape[1]:
        raise NoPlace
    late, cut, width = f"{source}_late", f"{source}_cut", node.attributes["quant_type"]
    attributes = {"frame_axis": 1, "window_size": 2, "quant_type": width}
    cache = Node(f"{node.name}_late", "StreamingCache", (source,), (late,), attributes)
    words = {"starts": 0, "ends": value.shape[1], "axes": 1, "steps": 1}
    constants = {f"{cut}_{word}": _constant(f"{cut}_{word}", n) for word, n in words.items()}
    slicer = Node(f"{node.name}_cut", "Slice", (late, *constants), (cut,), {"quant_type": width})
    inputs = tuple(cut if i == index else name for i, name in enumerate(node.inputs))
    nodes: list[Node] = []
    for n in graph.nodes:
        nodes += [cache, slicer, replace(n, inputs=inputs)] if n.name == node.name else [n]
    infos = {name: replace(graph.value_info[source], name=name) for name in (late, cut)}
    changed = replace(
        graph,
        nodes=tuple(nodes),
        value_info={**graph.value_info, **infos},
        initializers={**graph.initializers, **constants},
    )
    return _misplanned(subject, changed)


def _constant(name: str, value: int) -> Tensor:
    info = TensorInfo(name, np.dtype(np.int64), (1,))
    return Tensor(info, np.array([value], np.int64))


@KINDS.kind("two calibrations", "plan", Cause.EXPONENT)
def two_calibrations(subject: Subject, rng: Random) -> Injection:
    """The streaming file was calibrated on its own: a filter has other exponents."""
    graph = subject.graph
    name = pick(rng, linear_nodes(graph)).inputs[1]
    stored, by = graph.initializers[name], int(rng.choice([-1, 1]))
    info = replace(stored.info, exponents=tuple(e + by for e in stored.info.exponents))
    constants = {**graph.initializers, name: replace(stored, info=info)}
    return _misplanned(subject, replace(graph, initializers=constants))


@KINDS.kind("two trainings", "plan", Cause.WEIGHTS)
def two_trainings(subject: Subject, rng: Random) -> Injection:
    """The streaming file holds other weights than the offline file."""
    name = pick(rng, linear_nodes(subject.graph)).inputs[1]
    raw = subject.graph.initializers[name].raw
    changed = (raw + rng.integers(-9, 10, raw.shape)).clip(-120, 120).astype(raw.dtype)
    return _misplanned(subject, with_raw(subject.graph, name, changed))


@KINDS.kind("warm-up not declared", "plan", Cause.WARM_UP)
def warm_up(subject: Subject, rng: Random) -> Injection:
    """A MaxPool: offline it ignores its padding, a cold cache holds zeros."""
    offline = offline_of(subject)
    pool = pick(rng, [n for n in subject.graph.nodes if n.op_type == "AveragePool"])
    planned = replace(
        subject,
        graph=_with_maximum(subject.graph, pool.name),
        offline=replace(offline, graph=_with_maximum(offline.graph, pool.name)),
    )
    return Injection(planned=planned)


def _with_maximum(graph: Graph, name: str) -> Graph:
    """The graph with a MaxPool in place of an AveragePool; it keeps its input's exponent."""
    pool = pick(np.random.default_rng(0), [n for n in graph.nodes if n.name == name])
    source, result = (graph.value_info[name] for name in (pool.inputs[0], pool.outputs[0]))
    known = replace(result, exponents=source.exponents)
    outputs = tuple(known if info.name == known.name else info for info in graph.outputs)
    infos = {**graph.value_info, known.name: known}
    return replace(rewired(graph, pool, op_type="MaxPool"), outputs=outputs, value_info=infos)


@KINDS.kind("chunk of no whole stride", "plan", Cause.PHASE)
def stride_phase(subject: Subject, rng: Random) -> Injection:
    """The streaming file fed chunks that are no multiple of its stride."""
    offline = offline_of(subject)
    stride, (name, *others) = offline.total_stride, subject.chunks[0]
    if stride < 2 or others or len(subject.alignments) > 1:
        raise NoPlace
    whole, usual = offline.inputs[name], subject.chunks[0][name].shape
    axis = next(i for i, size in enumerate(usual) if size != whole.shape[i])
    frames = pick(rng, [n for n in range(1, usual[axis]) if n % stride])
    shape = (*usual[:axis], frames, *usual[axis + 1 :])
    inputs = tuple(replace(info, shape=shape) for info in subject.graph.inputs)
    graph = replace(subject.graph, inputs=inputs)
    (alignment,) = subject.alignments
    outputs = {info.name: info for info in interpreter.load(graph, subject.target).outputs}
    yields = outputs[alignment.output].shape[alignment.frame_axis]
    whole_yields = interpreter.load(offline.graph, subject.target).outputs[0].shape
    count = min(whole.shape[axis] // frames, whole_yields[alignment.frame_axis] // yields)
    cuts = range(frames, count * frames, frames)
    parts = np.split(whole.take(range(count * frames), axis), list(cuts), axis)
    planned = replace(
        subject,
        graph=graph,
        chunks=tuple({name: np.ascontiguousarray(part)} for part in parts),
        alignments=(replace(alignment, out_frames_per_chunk=yields),),
    )
    return Injection(planned=planned)
