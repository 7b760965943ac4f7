"""The ladder: how well each layer of the offline file keeps the float network's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.espdl import Node
from espdl_hil.proof.loss import Layer, explain_loss
from espdl_hil.streaming.names import module_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.compare import Fidelity
    from espdl_hil.espdl import Graph
    from espdl_hil.interpreter import Execution
    from espdl_hil.quantize import Artifacts

EXACT_DB = 100.0  # no width shows more: what is better, or exact, counts as this
FRESH_DB_A_BIT = 5.0  # what a sequence keeps that is quantized in a range that fits it
INPUT = "Input"


@dataclass(frozen=True)
class Rung:
    """How well one tensor of the file is kept.

    Attributes:
        node: Name of the node that gives it; of the graph input.
        operator: The node's operator, or ``Input``.
        tensor: Its name.
        module: Path of the author's module that the node is of; empty where it is of none.
        changes_db: SQNR of what changes along time; at most ``EXACT_DB``.
        clipped: Share of the float network's values that lie beyond the tensor's range.
        saturated: Share of the tensor's values at either end of its range.
    """

    node: str
    operator: str
    tensor: str
    module: str
    changes_db: float
    clipped: float = 0.0
    saturated: float = 0.0


@dataclass(frozen=True)
class Loss:
    """Where most of one graph output's quality is lost.

    Attributes:
        rung: The layer.
        before_db: What its inputs have; for a graph input, what its width allows.
        cause: Why, in words.
        advice: What to try.
    """

    rung: Rung
    before_db: float
    cause: str
    advice: str

    def __str__(self) -> str:
        rung = self.rung
        module = f" of module {rung.module}" if rung.module else ""
        return (
            f"{rung.operator} {rung.node!r}{module}, {self.before_db:.1f} dB before it and "
            f"{rung.changes_db:.1f} dB after it: {self.cause}"
        )


@dataclass(frozen=True)
class Ladder:
    """A file's layers in the order of execution, as far as the float network has them.

    Attributes:
        rungs: One a tensor.
        losses: By graph output; one that nothing is lost on the way to is missing.
        lost_db: What each node loses for good, for the output that loses most.
    """

    rungs: tuple[Rung, ...]
    losses: Mapping[str, Loss]
    lost_db: Mapping[str, float]


def climb(graph: Graph, target: str, run: Execution, artifacts: Artifacts) -> Ladder:
    """Set a run of the offline file, which has stepped through the stimulus, beside the floats."""
    floats, axes = artifacts.activations, artifacts.frame_axes
    found = {
        name: Layer(
            values[tuple(map(slice, floats[name].shape))],
            floats[name],
            run.exponents[name],
            axes.get(name),
        )
        for name, values in {**artifacts.inputs_q, **run.trace}.items()
        if name in floats
    }
    fresh_db = FRESH_DB_A_BIT * artifacts.meta["recipe"]["bits"]
    levels = {
        name: level(layer.fidelity.changes_db, layer.fidelity) for name, layer in found.items()
    }
    nodes = [Node(info.name, INPUT, (), (info.name,)) for info in graph.inputs] + [*graph.nodes]
    for node in nodes:  # what the float network does not have is as good as what it reads
        for name in filter(None, node.outputs):
            levels.setdefault(name, _lowest(node, levels, fresh_db))
    makers = {name: node for node in nodes for name in node.outputs if name in found}
    rungs = {
        name: Rung(
            node.name,
            node.op_type,
            name,
            module_of(node.name, node.op_type, [i for i in node.inputs if i in graph.initializers]),
            levels[name],
            float(found[name].clipped.mean()),
            found[name].saturated,
        )
        for name, node in makers.items()
    }
    losses = {}
    lost_db: dict[str, float] = {}
    for info in graph.outputs:
        drops = _drops(nodes, info.name, levels, fresh_db)
        for tensor in rungs.keys() & drops.keys():
            layer = rungs[tensor].node
            lost_db[layer] = max(lost_db.get(layer, 0.0), drops[tensor])
        worst = max((name for name in rungs if name in drops), key=drops.__getitem__, default="")
        if worst and drops[worst] > 0:
            maker = makers[worst]
            lanes = {lane.node: str(lane) for lane in run.lane_saturations}
            told = explain_loss(graph, maker, target, found[worst], lanes)
            losses[info.name] = Loss(rungs[worst], _lowest(maker, levels, fresh_db), *told)
    return Ladder(tuple(rungs.values()), losses, lost_db)


def level(decibels: float | None, fidelity: Fidelity) -> float:
    """What is comparable in any case: also of what is exact, and of noise without a signal."""
    if decibels is None:
        decibels = -EXACT_DB if fidelity.noise else EXACT_DB
    return max(-EXACT_DB, min(EXACT_DB, decibels))


def _lowest(node: Node, levels: Mapping[str, float], fresh_db: float) -> float:
    """The lowest of a node's inputs, constants left out."""
    return min((levels[name] for name in node.inputs if name in levels), default=fresh_db)


def _drops(
    nodes: Sequence[Node], output: str, levels: Mapping[str, float], fresh_db: float
) -> dict[str, float]:
    """What each tensor that *output* is computed from loses for good.

    A tensor that is worse than what is computed from it (a sum before its Sigmoid) has lost
    nothing that matters.
    """
    kept = {output: levels[output]}
    for node in reversed(nodes):
        reached = [name for name in node.outputs if name in kept]
        if reached:
            for name in (name for name in node.inputs if name in levels):
                later = max(kept[reader] for reader in reached)
                kept[name] = max(kept.get(name, levels[name]), later)
    drops: dict[str, float] = {}
    for node in nodes:
        before = _lowest(node, kept, fresh_db)
        drops |= {name: before - kept[name] for name in node.outputs if name in kept}
    return drops
