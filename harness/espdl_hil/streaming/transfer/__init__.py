"""How each operator treats time, one family a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from espdl_hil.streaming.transfer import layout, mixing, pointwise, recurrent, select, windowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk

Handler: TypeAlias = "Callable[[Walk, Node], None]"

HANDLERS: dict[str, Handler] = {
    **pointwise.HANDLERS,
    **windowed.HANDLERS,
    **layout.HANDLERS,
    **select.HANDLERS,
    **mixing.HANDLERS,
    **recurrent.HANDLERS,
}
WHOLE = mixing.WHOLE
