"""ESP-DL's operators: what each accepts, its shapes, what the chip gets wrong, and its kernel.

One family a file, with a table ``OPERATORS`` at its end: activation, cache, casts, conv, division,
elementwise, extend, gemm, layout, normalize, piecewise, pool, recurrent, reduce, resize, select,
softmax. ``registry`` merges the tables; ``check``, ``inference`` and ``sizes`` walk through it.
The rest is what families share: ``signature`` says what an operator is, ``node`` what its
functions are given, ``numeric``, ``accumulate``, ``lanes``, ``saturation``, ``tables`` and
``windows`` how the chips compute, ``selection`` where the size of a node decides and where nobody
knows to the last bit, ``detour`` what means the same as what a chip computes wrongly.
"""

from espdl_hil.operators.check import check_graph, limits_of
from espdl_hil.operators.inference import infer_shapes, output_shapes
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.registry import OPERATORS
from espdl_hil.operators.selection import code_by_size, find_detours, float_step_lsb

__all__ = [
    "OPERATORS",
    "NodeProblem",
    "check_graph",
    "code_by_size",
    "find_detours",
    "float_step_lsb",
    "infer_shapes",
    "limits_of",
    "output_shapes",
]
