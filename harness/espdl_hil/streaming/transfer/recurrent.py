"""GRU and LSTM: their state must travel from chunk to chunk."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.graph import text
from espdl_hil.streaming.state import RECURRENT, feeds_back, state_source
from espdl_hil.streaming.timing import Flow, Tail

if TYPE_CHECKING:
    from espdl_hil.streaming.graph import NeutralGraph, Node
    from espdl_hil.streaming.walk import Walk


BITS_A_BYTE = 8


def recurrent(walk: Walk, node: Node) -> None:
    """X ``(T, B, I)`` to Y ``(T, directions, B, H)`` and the last states ``(directions, B, H)``."""
    last = timing = walk.timing_of(node, 0)
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
        timing = replace(timing, field=math.inf, past=math.inf, clean=True, nonnegative=False)
        last = Tail(walk.prefix_for(timing, 1), -1, math.inf, -math.inf)
    elif isinstance(timing, Tail):
        last = timing = replace(timing, axis=-1)
    for index in range(len(node.outputs)):
        walk.put_output(node, index, timing if index == 0 else last)


def _check(walk: Walk, node: Node, flow: Flow) -> None:
    """Refuse a layer whose state does not travel from chunk to chunk."""
    if flow.axis == 1:
        refusal = refuse(
            rules.UNRUNNABLE, node.name, "frames lie along its batch axis, ESP-DL takes one"
        )
        refusal.hint = "mix what lies within a frame with nn.Linear or a convolution instead"
        raise refusal
    if flow.axis != 0:
        raise refuse(rules.FOLDED, node.name, f"time is axis {flow.axis}, the layer runs along 0")
    direction = text(node, "direction", "forward")
    if direction not in ("forward", ""):
        raise refuse(rules.REVERSED, node.name, f"direction {direction}")
    for entry, end in RECURRENT[node.op_type]:
        _check_state(walk, node, entry, end)


def _check_state(walk: Walk, node: Node, entry: int, end: int) -> None:
    """Check the way of one state: graph input, initial state, last state, graph output."""
    kind = "cell state" if entry == 6 else "hidden state"
    source = state_source(walk.graph, node, entry)
    if source not in walk.clock.state:
        what = f"comes from {source!r}" if source else "comes from no graph input"
        message = f"its initial {kind} {what}, which no state of the model names"
        raise refuse(rules.STATE_DROPPED, node.name, message)
    output = walk.clock.state[source]
    if not feeds_back(walk.graph, node, entry, end, output):
        message = (
            f"graph output {output!r} is not its last {kind}, so {source!r} is fed something else"
        )
        raise refuse(rules.STATE_DROPPED, node.name, message)
    way = (source, node.inputs[entry], node.outputs[end], output)
    if not _kept(walk.graph, *way):
        exponents = [walk.graph.exponents.get(name) for name in way]
        first, *between, last = (e[0] if e else "none" for e in exponents)
        middle = ", ".join(map(str, between))
        message = (
            f"its {kind} changes exponent on its way: {source} {first}, {middle}, {output} {last}"
        )
        raise refuse(rules.STATE_EXPONENT, node.name, message)


def _kept(graph: NeutralGraph, source: str, entered: str, left: str, output: str) -> bool:
    """Whether a state is read as it was written, and loses nothing in what carries it."""
    carried, state, *back = (
        (graph.exponents.get(name), graph.itemsizes.get(name, 0))
        for name in (source, entered, left, output)
    )
    (outer, wide), (inner, narrow) = carried, state
    if back != [state, carried]:
        return False
    if outer is None or inner is None:
        return outer == inner
    return 0 <= inner[0] - outer[0] <= BITS_A_BYTE * (wide - narrow)


HANDLERS = dict.fromkeys(RECURRENT, recurrent)
