"""What emulators compute otherwise than the chip: a table, and which nodes of a run it covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil import interpreter
from espdl_hil.errors import HarnessError
from espdl_hil.interpreter.node_graph import activations, cut_node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.diagnosis.mismatch import Probe
    from espdl_hil.espdl import Graph, Node


@dataclass(frozen=True)
class Deviation:
    """One instruction that an emulator computes wrongly, as it shows in a node.

    Attributes:
        emulator: Its name.
        versions: Which, in words; none is known to mend it.
        target: The chip.
        operators: Nodes in which it shows.
        condition: When, in words.
        reference: Where that is known from.
        covers: Whether each element that differs is one of those; takes graph, node, expected and
            observed output, one chunk after the other on a new first axis.
    """

    emulator: str
    versions: str
    target: str
    operators: frozenset[str]
    condition: str
    reference: str
    covers: Callable[[Graph, Node, Array, Array], bool]


def _tail_with_negative_bias(graph: Graph, node: Node, expected: Array, observed: Array) -> bool:
    bias = graph.initializers.get(node.inputs[2]) if node.inputs[2:] else None
    if bias is None or node.attributes.get("group", 1) != 1:
        return False
    size = expected.shape[-1]
    block = 16 if expected.dtype == np.int8 else 8
    wrong = np.flatnonzero((expected != observed).reshape(-1, size).any(0))
    return bool(wrong.min() >= size // block * block and (bias.array.ravel()[wrong] < 0).all())


def _minimum_clamped(graph: Graph, node: Node, expected: Array, observed: Array) -> bool:
    del graph, node
    if expected.dtype.kind != "i":
        return False
    wrong, least = expected != observed, np.iinfo(expected.dtype).min
    return bool((expected[wrong] == least).all() and (observed[wrong] == least + 1).all())


DEVIATIONS = (
    Deviation(
        "QEMU",
        "all up to 9.2",
        "esp32s3",
        frozenset({"Conv", "Gemm"}),
        "a channel behind the last whole vector, with a negative bias: EE.LD.ACCX.IP does not "
        "extend the sign",
        "docs/device.md",
        _tail_with_negative_bias,
    ),
    Deviation(
        "QEMU",
        "all up to 9.2",
        "esp32s3",
        frozenset({"Add", "Sub"}),
        "the least integer comes out one larger: EE.VADDS and EE.VSUBS clamp too early",
        "github.com/espressif/qemu/issues/161",
        _minimum_clamped,
    ),
)


def known_deviations(
    emulator: str,
    target: str,
    graph: Graph,
    chunks: Sequence[Tensors],
    state: Mapping[str, str],
    probe: Probe,
) -> tuple[str, ...] | None:
    """Judge every node of a run by what the emulator itself fed it.

    Args:
        emulator: Name and version.
        target: The chip.
        graph: What runs.
        chunks: What each step is given, without state inputs.
        state: Recurrent state, graph input to the graph output that feeds it.
        probe: The emulated device, to run the stream again.

    Returns:
        A line for each node that deviates as the table says, none if no node deviates; None if a
        node gives anything else, or cannot be judged.
    """
    known = [d for d in DEVIATIONS if emulator.startswith(d.emulator) and d.target == target]
    if not known:
        return None
    names = [name for node in graph.nodes for name in node.outputs if name]
    seen = [dict(look.seen) for look in probe.values(names, len(chunks))]
    fed = {i.name: np.zeros(i.shape, i.dtype) for i in graph.inputs if i.name in state}
    for values, chunk in zip(seen, chunks, strict=True):
        values |= {**chunk, **fed}
        fed = {name: values[source] for name, source in state.items()}
    lines = []
    for node in graph.nodes:
        output = node.outputs[0]
        try:
            expected = _again(graph, node, target, seen, output)
            observed = np.stack([values[output] for values in seen])
        except (HarnessError, KeyError):
            return None
        if np.array_equal(expected, observed):
            continue
        candidates = (d for d in known if node.op_type in d.operators)
        found = next((d for d in candidates if d.covers(graph, node, expected, observed)), None)
        if found is None:
            return None
        count = int((expected != observed).sum())
        lines.append(f"{node.op_type} {node.name}: {count} elements, {found.condition}")
        lines.append(f"  known of {found.emulator}, {found.versions}: {found.reference}")
    return tuple(lines)


def _again(graph: Graph, node: Node, target: str, seen: Sequence[Tensors], output: str) -> Array:
    """What a node should have given, its state kept from chunk to chunk."""
    session = interpreter.load(cut_node(graph, node, seen[0]), target)
    names = activations(graph, node)
    steps = [session.step({name: values[name] for name in names}) for values in seen]
    return np.stack([np.array(step[output]) for step in steps])
