"""The names that a user knows: module paths instead of the tracer's and the exporter's names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from espdl_hil.streaming.findings import Finding
    from espdl_hil.streaming.graph import NeutralGraph

_MADE_UP = re.compile(r"PPQ_(Operation|Variable)_\d+|\.(front|back)$")
_COUNTED = re.compile(r"[A-Z][A-Za-z]+_\d+")  # Reshape_0: the optimizer's own
_TRACED = re.compile("/|onnx::")  # constants that the tracer has named
_BEHIND_ANOTHER = {"Swish": 2}  # parts of a name that are no module: it carries its Sigmoid's
_QUOTED = re.compile(r"\b\w+ '(/[^']+)'")  # Conv '/c/Conv'


def is_made_up(name: str) -> bool:
    """Whether a node or tensor has a name that a converter has counted out, anew in each file."""
    return _MADE_UP.search(name) is not None


def module_of(node: str, operator: str, parameters: Iterable[str] = ()) -> str:
    """The module that a node comes from, as ``named_modules`` says; empty for the network itself.

    Args:
        node: ``/scope/scope/Operator`` as traced; the children of a Sequential repeat its name.
        operator: The node's operator.
        parameters: Constants that it reads: where the tracer has put two nodes together, or
            several into one, the name of a weight says it.

    >>> module_of("/blocks/blocks.1/point/Conv", "Conv")
    'blocks.1.point'
    >>> module_of("Gemm_1", "Gemm", ["onnx::MatMul_54", "mask.bias"])
    'mask'
    >>> module_of("/a/Relu_output_0_/b/Conv_0_cache", "StreamingCache")
    ''
    """
    if operator == "StreamingCache" or is_made_up(node):
        return ""
    if not node.startswith("/"):
        named = (each for each in parameters if "::" not in each and "." in each)
        return next((each.rpartition(".")[0] for each in named), "")
    path: list[str] = []
    for scope in filter(None, node.split("/")[: -_BEHIND_ANOTHER.get(operator, 1)]):
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)


def module_path(node: str) -> str:
    """Write a traced node's name as its module's path and its operator.

    >>> module_path("/blocks/blocks.1/blocks.1.0/point/Conv")
    'blocks.1.0.point (Conv)'
    >>> module_path("/Softmax_1")
    'forward (Softmax_1)'
    >>> module_path("network.py:12")
    'network.py:12'
    """
    if not node.startswith("/"):
        return node
    operator = node.rpartition("/")[2]
    return f"{module_of(node, operator) or 'forward'} ({operator})"


def readable(text: str, graph: NeutralGraph) -> str:
    """Write a text with the user's names in place of those of a graph's nodes and tensors.

    Names that the exporter has made up are said by what lies before them.
    """
    text = _QUOTED.sub(lambda found: module_path(found[1]), text)
    ends = {*graph.inputs, *graph.outputs, *graph.constants}
    names = {node.name: _node_name(node.name, graph) for node in graph.nodes}
    names |= {name: "a constant" for name in graph.constants if _TRACED.match(name)}
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
    while is_made_up(node.name):
        source = next((graph.producers[i] for i in node.inputs if i in graph.producers), None)
        if source is None:
            return next(iter(node.inputs), name)
        node = source
    if not node.name.startswith("/"):  # a Linear that the optimizer has put together
        weights = [name for name in node.inputs if name in graph.constants]
        owner = module_of(node.name, node.op_type, weights)
        if owner in ("", node.name):
            return f"forward ({node.name})" if _COUNTED.fullmatch(node.name) else node.name
        return f"{owner} ({node.op_type})"
    return module_path(node.name)
