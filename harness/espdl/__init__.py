"""The `.espdl` file: container, package, graph, shapes and weight packing.

Import from here; the modules inside are free to move.
"""

from harness.espdl.check import check_graph
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
from harness.espdl.inference import infer_shapes
from harness.espdl.operators import OPERATORS
from harness.espdl.patch import patch_initializer
from harness.espdl.reader import load_graph
from harness.espdl.weights import (
    filter_shape,
    pack_filter,
    pack_matrices,
    unpack_filter,
    unpack_matrices,
)

__all__ = [
    "OPERATORS",
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
    "check_graph",
    "filter_shape",
    "infer_shapes",
    "load_graph",
    "pack_filter",
    "pack_matrices",
    "patch_initializer",
    "read_package",
    "unpack_filter",
    "unpack_matrices",
    "write_package",
]
