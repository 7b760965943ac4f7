"""Every operator of ESP-DL 3.3 by its ONNX name: the one list, merged from the families.

Matches: ``dl_module_creator.hpp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.operators import (
    activation,
    cache,
    casts,
    conv,
    division,
    elementwise,
    extend,
    gemm,
    layout,
    normalize,
    piecewise,
    pool,
    recurrent,
    reduce,
    resize,
    select,
    softmax,
)

if TYPE_CHECKING:
    from espdl_hil.operators.signature import Operator

FAMILIES = (
    activation,
    cache,
    casts,
    conv,
    division,
    elementwise,
    extend,
    gemm,
    layout,
    normalize,
    piecewise,
    pool,
    recurrent,
    reduce,
    resize,
    select,
    softmax,
)
OPERATORS: dict[str, Operator] = {
    name: operator for family in FAMILIES for name, operator in family.OPERATORS.items()
}
