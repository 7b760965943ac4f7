"""The names that a user knows: module paths instead of the tracer's and the exporter's names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from espdl_hil.streaming.findings import Finding
    from espdl_hil.streaming.graph import NeutralGraph

_MADE_UP = re.compile(r"PPQ_Operation_\d+|\.(front|back)$")
_QUOTED = re.compile(r"\b\w+ '(/[^']+)'")  # Conv '/c/Conv'


def module_path(node: str) -> str:
    """Read the module's path out of a traced node's name.

    Args:
        node: ``/scope/scope/Operator``; the children of a Sequential repeat its name.

    >>> module_path("/blocks/blocks.1/blocks.1.0/point/Conv")
    'blocks.1.0.point (Conv)'
    >>> module_path("/Softmax_1")
    'forward (Softmax_1)'
    >>> module_path("network.py:12")
    'network.py:12'
    """
    if not node.startswith("/"):
        return node
    *scopes, operator = node[1:].split("/")
    path: list[str] = []
    before = ""
    for scope in scopes:
        if before and scope.startswith(f"{before}."):
            path[-1] += scope[len(before) :]
        else:
            path.append(scope)
        before = scope
    return f"{'.'.join(path) or 'forward'} ({operator})"


def readable(text: str, graph: NeutralGraph) -> str:
    """Write a text with the user's names in place of those of a graph.

    Names that the exporter has made up are said by what lies before them.

    Args:
        text: Holds names of nodes and tensors.
        graph: Whose names they are.
    """
    text = _QUOTED.sub(lambda found: module_path(found[1]), text)
    ends = {*graph.inputs, *graph.outputs, *graph.constants}
    names = {node.name: _node_name(node.name, graph) for node in graph.nodes}
    for tensor, node in graph.producers.items():
        if tensor not in ends:
            shown = names[node.name]
            names.setdefault(tensor, shown if shown in ends else f"the output of {shown}")
    wanted = [name for name in names if names[name] != name and name in text]
    for name in sorted(wanted, key=len, reverse=True):
        shown = names[name].replace("\\", r"\\")  # a template
        text = re.sub(rf"(?<![\w./]){re.escape(name)}(?![\w/])", shown, text)
    return text


def with_user_names(findings: Iterable[Finding], graph: NeutralGraph) -> list[Finding]:
    """Findings about a graph, with ``readable`` names."""
    return [
        replace(f, node=readable(f.node, graph), message=readable(f.message, graph))
        for f in findings
    ]


def _node_name(name: str, graph: NeutralGraph) -> str:
    """A node's module path; one that a converter has added is named by what it stands behind."""
    by_name = {node.name: node for node in graph.nodes}
    node = by_name[name]
    while _MADE_UP.search(node.name):
        source = next((graph.producers[i] for i in node.inputs if i in graph.producers), None)
        if source is None:
            return next(iter(node.inputs), name)
        node = source
    if not node.name.startswith("/"):  # a Linear that the optimizer has put together
        owners = [i.rpartition(".")[0] for i in node.inputs if i in graph.constants]
        owner = next((o for o in owners if o and o != node.name and ":" not in o), None)
        return node.name if owner is None else f"{owner} ({node.op_type})"
    return module_path(node.name)
