"""Attributes of a node as plain numbers, whichever way the exporter spelled them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espdl_hil.espdl import Node


def integer(node: Node, name: str, default: int) -> int:
    """An attribute that is one integer."""
    value: Any = node.attributes.get(name)
    return default if value is None else int(value)


def text(node: Node, name: str, default: str) -> str:
    """An attribute that is a word."""
    value: Any = node.attributes.get(name)
    return default if value is None else str(value)


def integers(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of integers; one integer stands for as many as in *default*."""
    value: Any = node.attributes.get(name)
    if value is None or (isinstance(value, tuple | list) and not value):
        return default
    if isinstance(value, int):
        return (value,) * max(1, len(default))
    return tuple(int(entry) for entry in value)
