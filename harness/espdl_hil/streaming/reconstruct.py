"""The offline graph that a streaming file seems to come from, when only that file is at hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming.analysis import step
from espdl_hil.streaming.graph import integer
from espdl_hil.streaming.timing import Flow
from espdl_hil.streaming.transfer.windowed import padding, windows
from espdl_hil.streaming.walk import Walk

if TYPE_CHECKING:
    from espdl_hil.espdl import Node
    from espdl_hil.streaming.clock import Clock
    from espdl_hil.streaming.graph import NeutralGraph


def reconstruct_offline(streaming: NeutralGraph, clock: Clock) -> NeutralGraph:
    """Undo a streaming conversion: a causal graph of one chunk's length, without caches.

    Every window along time is taken for causal: it pads the frames that its cache holds, or as
    many as let it keep its frame count.
    """
    bare = _without_caches(streaming)
    walk = Walk(bare, clock)
    held = {
        node.outputs[0]: integer(node, "window_size", 1) - 1
        for node in streaming.nodes
        if node.op_type == "StreamingCache"
    }
    caches = {node.name: held.get(node.inputs[0], 0) for node in streaming.nodes if node.inputs}
    nodes = []
    for node in bare.nodes:
        nodes.append(_padded(node, walk, caches))
        step(walk, nodes[-1])
    return replace(bare, nodes=tuple(nodes))


def _without_caches(streaming: NeutralGraph) -> NeutralGraph:
    """Connect what reads a cache, or a Slice of its frames, to what the cache reads."""
    sources: dict[str, str] = {}
    nodes = []
    for node in streaming.nodes:
        reads_cache = node.inputs[0] in sources if node.inputs else False
        if node.op_type == "StreamingCache" or (node.op_type == "Slice" and reads_cache):
            sources[node.outputs[0]] = sources.get(node.inputs[0], node.inputs[0])
            continue
        inputs = tuple(sources.get(name, name) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
    outputs = tuple(sources.get(name, name) for name in streaming.outputs)
    return replace(streaming, nodes=tuple(nodes), outputs=outputs)


def _padded(node: Node, walk: Walk, caches: dict[str, int]) -> Node:
    if node.op_type not in ("Conv", "AveragePool", "MaxPool"):
        return node
    name = node.inputs[0]
    timing = walk.timing.get(name)
    shape = walk.shape.get(name, ())
    if not isinstance(timing, Flow) or not 1 <= timing.axis < len(shape) - 1:
        return node
    geometry, position = windows(node, walk.shape), timing.axis - 1
    window = geometry[position]
    least = max(0, window.extent - window.stride)
    held = caches[node.name]
    pads = list(padding(node, len(geometry)))
    pads[position] = held if least <= held < window.extent else least
    pads[position + len(geometry)] = 0
    return replace(node, attributes={**node.attributes, "pads": tuple(pads)})
