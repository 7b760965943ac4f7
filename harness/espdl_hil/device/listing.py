"""Lists that come in pages: complete, in time, no name twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.device.transport import Transport
    from espdl_hil.wire.messages import DescribeReply, ListModelsReply, Message

MAX_LISTED: Final = 65536  # entries


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Item = TypeVar("_Item", bound=_Named)
_Page = TypeVar("_Page", "ListModelsReply", "DescribeReply")


def read_list(
    transport: Transport,
    ask: Callable[[int], Message],
    kind: type[_Page],
    items_of: Callable[[_Page], Sequence[_Item]],
    deadline_s: float | None = None,
) -> tuple[_Item, ...]:
    """Ask for one page after the other.

    *ask* gives the request for the page from an index on, *items_of* what a page holds, or raises
    ``ValueError``. *deadline_s* is that of one page; the whole list has ``list_s``.

    Raises:
        TransportError: The list is too long, does not end, or has two entries of one name.
    """
    found: dict[str, _Item] = {}
    over = time.monotonic() + transport.timing.list_s
    while True:
        page = transport.ask(ask(len(found)), kind, deadline_s)
        with transport.checking("a list"):
            if page.total > MAX_LISTED:
                raise ValueError(f"{page.total} entries, expected {MAX_LISTED} at most")
            before = len(found)
            for item in items_of(page):
                if item.name in found:
                    raise ValueError(f"two entries have the name {item.name!r}")
                found[item.name] = item
            if len(found) == page.total:
                return tuple(found.values())
            if len(found) > page.total or len(found) == before:
                raise ValueError(f"{len(found)} entries came of {page.total}")
            if time.monotonic() > over:
                raise ValueError(
                    f"{len(found)} of {page.total} entries after {transport.timing.list_s:g} s"
                )
