"""ESP-DL's operators: what each accepts, its shapes, what the chip gets wrong, and its kernel.

Import from here; the modules inside are free to move.
"""

from espdl_hil.operators.check import check_graph
from espdl_hil.operators.inference import infer_shapes, output_shapes
from espdl_hil.operators.node_view import NodeProblem
from espdl_hil.operators.table import OPERATORS

__all__ = ["OPERATORS", "NodeProblem", "check_graph", "infer_shapes", "output_shapes"]
