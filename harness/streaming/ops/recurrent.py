"""GRU and LSTM: their state must travel from chunk to chunk."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.streaming import rules
from harness.streaming.attributes import integer, text
from harness.streaming.rules import refuse
from harness.streaming.timing import Flow, Tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.streaming.graph import NeutralGraph, Node
    from harness.streaming.walk import Walk

MOVEMENT = frozenset(["Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"])


def recurrent(walk: Walk, node: Node) -> None:
    """X ``(T, B, I)`` to Y ``(T, directions, B, H)`` and the last states ``(directions, B, H)``."""
    shape, timing = walk.shape[node.inputs[0]], walk.timing_of(node, 0)
    hidden = integer(node, "hidden_size", 0)
    directions = 2 if text(node, "direction", "") == "bidirectional" else 1
    outputs: list[tuple[int, ...]] = [
        (shape[0], directions, shape[1], hidden),
        *[(directions, shape[1], hidden)] * 2,
    ]
    last = timing
    if isinstance(timing, Flow):
        _check(walk, node, timing)
        walk.require_causal(node.inputs[0], timing)
        if timing.delay < 0:
            timing = walk.delay(node, 0, 0)
        if timing.delay > 0 or timing.warmup > 0:
            raise refuse(
                rules.UNBOUNDED,
                node.name,
                f"its input lags by {timing.delay} and warms up for {timing.warmup} frame(s)",
            )
        timing = replace(timing, field=math.inf, clean=True, nonnegative=False)
        last = Tail(walk.prefix_for(timing, 1), -1, math.inf)
    elif isinstance(timing, Tail):
        last = timing = replace(timing, axis=-1)
    for index, output in enumerate(node.outputs):
        walk.put(output, outputs[index], timing if index == 0 else last, node)


def _check(walk: Walk, node: Node, flow: Flow) -> None:
    """Refuse a layer whose state does not travel from chunk to chunk."""
    if flow.axis != 0:
        raise refuse(rules.FOLDED, node.name, f"time is axis {flow.axis}, the layer runs along 0")
    direction = text(node, "direction", "forward")
    if direction not in ("forward", ""):
        raise refuse(rules.REVERSED, node.name, f"direction {direction}")
    states = (5,) if node.op_type == "GRU" else (5, 6)
    for number, index in enumerate(states, start=1):
        _check_state(walk, node, index, number)


def _check_state(walk: Walk, node: Node, index: int, output_index: int) -> None:
    """Check the way of one state: graph input, initial state, last state, graph output."""
    kind = "cell state" if index == 6 else "hidden state"
    name = node.inputs[index] if index < len(node.inputs) else ""
    source = origin(walk.graph, name) if name else ""
    if source not in walk.clock.state:
        what = f"comes from {source!r}" if source else "is missing"
        raise refuse(
            rules.STATE_DROPPED,
            node.name,
            f"its initial {kind} {what}, which no state of the model names",
        )
    output = walk.clock.state[source]
    written = node.outputs[output_index] if output_index < len(node.outputs) else ""
    if not written or origin(walk.graph, output) != written:
        raise refuse(
            rules.STATE_DROPPED,
            node.name,
            f"graph output {output!r} is not its last {kind}, so {source!r} is fed something else",
        )
    exponents = walk.graph.exponents
    if exponents.get(source) != exponents.get(output):
        raise refuse(
            rules.STATE_EXPONENT,
            node.name,
            f"{source} has exponent {exponents.get(source)}, {output} has {exponents.get(output)}",
        )


def origin(graph: NeutralGraph, name: str) -> str:
    """Follow a tensor back through nodes that only move elements."""
    producer = graph.producers.get(name)
    while producer is not None and producer.op_type in MOVEMENT:
        name = producer.inputs[0]
        producer = graph.producers.get(name)
    return name


def find_state(graph: NeutralGraph) -> dict[str, str]:
    """Graph inputs and outputs that GRU and LSTM nodes use as initial and last state."""
    sources = {origin(graph, name): name for name in graph.outputs}
    found = {}
    for node in graph.nodes:
        if node.op_type not in HANDLERS:
            continue
        for output, index in zip(node.outputs[1:], (5, 6), strict=False):
            name = origin(graph, node.inputs[index]) if index < len(node.inputs) else ""
            if name in graph.inputs and output in sources:
                found[name] = sources[output]
    return found


HANDLERS: dict[str, Callable[[Walk, Node], None]] = {"GRU": recurrent, "LSTM": recurrent}
