"""What a reply may say beyond its encoding: limits, echoes and sizes. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from espdl_hil.wire.framing import MAX_LENGTH
from espdl_hil.wire.messages import MAX_NAME

if TYPE_CHECKING:
    from espdl_hil.wire.messages import HelloReply, Message

MIN_PAYLOAD: Final = 1024  # these are wire/protocol.md section 5
MAX_WINDOW: Final = 64
MAX_BLOCK_BYTES: Final = 64 << 20  # twice the PSRAM of the largest module
NOT_ECHOED: Final = frozenset({"data", "sha256"})


def check_hello(hello: HelloReply) -> None:
    """Refuse limits that the protocol excludes, with a ``ValueError`` that names one."""
    for what, value, low, high in (
        ("max_payload", hello.max_payload, MIN_PAYLOAD, MAX_LENGTH),
        ("window", hello.window, 1, MAX_WINDOW),
        ("max_name", hello.max_name, 1, MAX_NAME),
        ("max_models", hello.max_models, 1, 255),
    ):
        if not low <= value <= high:
            raise ValueError(f"{what} is {value}, expected {low} to {high}")


def check_echo(request: Message, reply: Message) -> None:
    """Refuse a reply to another request, with a ``ValueError``: what both name must be equal."""
    names = {field.name for field in dataclasses.fields(request)}  # type: ignore[arg-type]
    for field in dataclasses.fields(reply):  # type: ignore[arg-type]
        if field.name in names - NOT_ECHOED:
            asked, got = getattr(request, field.name), getattr(reply, field.name)
            if asked != got:
                raise ValueError(f"{field.name} {got}, asked for {asked}")


def check_size(what: str, got: int, expected: int) -> None:
    """Refuse, with a ``ValueError``, a size that contradicts what was said before."""
    if got != expected:
        raise ValueError(f"{what}: {got} bytes, expected {expected}")
