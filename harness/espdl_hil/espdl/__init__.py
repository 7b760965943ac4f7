"""The `.espdl` file: container, package, graph and weight packing.

Import from here; the modules inside are free to move.
"""

from espdl_hil.espdl.container import PackageEntry, read_package, write_package
from espdl_hil.espdl.graph import (
    Array,
    Attribute,
    Graph,
    Header,
    Node,
    Shape,
    Span,
    Tensor,
    TensorInfo,
)
from espdl_hil.espdl.patch import patch_initializer
from espdl_hil.espdl.reader import DTYPES, load_graph
from espdl_hil.espdl.weights import (
    pack_filter,
    pack_matrices,
    unpack_filter,
    unpack_matrices,
)

__all__ = [
    "DTYPES",
    "Array",
    "Attribute",
    "Graph",
    "Header",
    "Node",
    "PackageEntry",
    "Shape",
    "Span",
    "Tensor",
    "TensorInfo",
    "load_graph",
    "pack_filter",
    "pack_matrices",
    "patch_initializer",
    "read_package",
    "unpack_filter",
    "unpack_matrices",
    "write_package",
]
