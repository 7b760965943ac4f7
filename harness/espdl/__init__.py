"""The `.espdl` file: container, package, graph, shapes and weight packing.

Import from here; the modules inside are free to move.
"""

from harness.espdl.container import PackageEntry, read_package, write_package
from harness.espdl.graph import (
    Array,
    Attribute,
    Graph,
    Header,
    Initializer,
    Node,
    Shape,
    Span,
    Tensor,
    TensorInfo,
)
from harness.espdl.reader import load_graph
from harness.espdl.shapes import infer_shapes

__all__ = [
    "Array",
    "Attribute",
    "Graph",
    "Header",
    "Initializer",
    "Node",
    "PackageEntry",
    "Shape",
    "Span",
    "Tensor",
    "TensorInfo",
    "infer_shapes",
    "load_graph",
    "read_package",
    "write_package",
]
