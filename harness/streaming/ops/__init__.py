"""How each operator treats time, one family a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from harness.streaming.ops import layout, mixing, pointwise, recurrent, select, windowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.streaming.graph import Node
    from harness.streaming.walk import Walk

Handler: TypeAlias = "Callable[[Walk, Node], None]"

HANDLERS: dict[str, Handler] = {
    **pointwise.HANDLERS,
    **windowed.HANDLERS,
    **layout.HANDLERS,
    **select.HANDLERS,
    **mixing.HANDLERS,
    **recurrent.HANDLERS,
}
