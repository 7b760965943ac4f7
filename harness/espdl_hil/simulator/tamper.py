"""Makes a model compute wrongly: injected faults as changes of the file or the graph.

An operator's wrong result is a look-up table behind it: a function of the right
result. So the interpreter itself stays untouched, and the same fault is the
same change for every operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import espdl
from espdl_hil.espdl import Graph, Node, Tensor, TensorInfo
from espdl_hil.simulator.faults import (
    LoadFault,
    LutEntry,
    SaturationWrap,
    WeightBit,
    WrongRounding,
    WrongShift,
)
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Values = NDArray[np.int64]
    Mapping = Callable[[Values], Values]


@dataclass(frozen=True)
class Tampered:
    """A model with faults in it.

    Attributes:
        graph: What to execute.
        target: On which arithmetic.
        faults: Those that found something to act on.
    """

    graph: Graph
    target: str
    faults: tuple[LoadFault, ...]


def tamper(data: bytes, graph: Graph, target: str, faults: Iterable[LoadFault]) -> Tampered:
    """Apply faults to a model.

    Args:
        data: A whole ``.espdl`` file.
        graph: What it holds.
        target: Target of the devkit.
        faults: In the order in which they act; those that find nothing to act on
            in the model are left out.

    Returns:
        The model to execute instead, and the faults that are in it.

    Raises:
        ConfigError: An element, bit or table entry is out of range.
    """
    applied: list[LoadFault] = []
    patched = data
    for fault in faults:
        if isinstance(fault, WrongRounding):
            target = next(other for other in DEVKIT_TARGETS if other != target)
        elif isinstance(fault, WeightBit | LutEntry):
            patch = _patch(graph, fault)
            if patch is None:
                continue
            patched = espdl.patch_initializer(patched, *patch)
        elif isinstance(fault, WrongShift | SaturationWrap) and not _is_integer(graph, fault.node):
            continue
        applied.append(fault)
    if patched is not data:
        graph = espdl.load_graph(patched)
    for fault in reversed(applied):  # each goes right behind the node, before those put there
        if isinstance(fault, WrongShift):
            graph = _behind(graph, fault.node, _shifted(fault.bits))
        elif isinstance(fault, SaturationWrap):
            graph = _behind(graph, fault.node, _wrapped)
    return Tampered(graph, target, tuple(applied))


def _node(graph: Graph, name: str) -> Node | None:
    return next((node for node in graph.nodes if node.name == name), None)


def _is_integer(graph: Graph, name: str) -> bool:
    """Whether there is such a node, with an int8 or int16 result."""
    node = _node(graph, name)
    return node is not None and graph.info(node.outputs[0]).dtype.name in ("int8", "int16")


def _patch(graph: Graph, fault: WeightBit | LutEntry) -> tuple[str, int, int] | None:
    """Constant, element and bits to flip; None when the model has no such constant."""
    if isinstance(fault, WeightBit):
        found = fault.tensor in graph.initializers
        return (fault.tensor, fault.element, 1 << fault.bit) if found else None
    node = _node(graph, fault.node)
    table = None if node is None else node.attributes.get("lut")
    return (table, fault.index, fault.xor) if isinstance(table, str) else None


def _shifted(bits: int) -> Mapping:
    return lambda values: values >> bits if bits >= 0 else values << -bits


def _wrapped(values: Values) -> Values:
    wrapped = values.copy()
    wrapped[[0, -1]] = values[[-1, 0]]
    return wrapped


def _behind(graph: Graph, name: str, function: Mapping) -> Graph:
    """Put a table behind a node's first output."""
    index = next(i for i, node in enumerate(graph.nodes) if node.name == name)
    node = graph.nodes[index]
    info = graph.info(node.outputs[0])
    right, table_name = f"{info.name}#right", f"{info.name}#table"
    table = Tensor(_table_info(table_name, info), _table(info.dtype, function))
    nodes = (
        *graph.nodes[:index],
        replace(node, outputs=(right, *node.outputs[1:])),
        Node(
            f"{name}#fault",
            "LUT",
            (right,),
            (info.name,),
            {"lut": table_name, "quant_type": f"S{8 * info.dtype.itemsize}"},
        ),
        *graph.nodes[index + 1 :],
    )
    return replace(
        graph,
        nodes=nodes,
        initializers=graph.initializers | {table_name: table},
        value_info=graph.value_info | {right: replace(info, name=right)},
    )


def _table_info(name: str, output: TensorInfo) -> TensorInfo:
    entries = 256 if output.dtype.itemsize == 1 else 65537
    return TensorInfo(name, output.dtype, (entries,), output.exponents)


def _table(dtype: np.dtype[Any], function: Mapping) -> NDArray[Any]:
    """Results for every value, lowest first; int16 tables repeat the last (one entry a step)."""
    limits = np.iinfo(dtype)
    values = np.arange(limits.min, limits.max + 1, dtype=np.int64)
    results = np.clip(function(values), limits.min, limits.max).astype(dtype)
    return results if dtype.itemsize == 1 else np.append(results, results[-1])
