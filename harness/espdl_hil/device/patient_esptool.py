"""esptool on a damaged line: small blocks, and what was refused or lost is sent again.

esptool gives up at one damaged byte of what it loads into RAM, and after three of a block. What it
sends between a *begin* and the last block takes its place from its order, so that a block is only
sent alone again if the device said that it has not taken it; when its answer is lost, everything
since the begin is.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

from esptool import loader
from esptool.loader import ESPLoader, StubMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK_BYTES: Final = 2048  # at 1e-4, four of five arrive; esptool takes 16 KiB
RAM_BLOCK_BYTES: Final = 1024
PART_BYTES: Final = 32 * 1024  # sent again as a whole; a multiple of a flash sector
RAM_ANSWER_S: Final = 1.0  # esptool waits 3 s; the ROM answers at once
MAX_REFUSALS: Final = 40  # of one block
MAX_LOSSES: Final = 3  # of one attempt; in flash, each takes esptool's 3 s

_COMMANDS = ESPLoader.ESP_CMDS
_BEGINS = [_COMMANDS[name] for name in ("MEM_BEGIN", "FLASH_BEGIN", "FLASH_DEFL_BEGIN")]
_BLOCKS = [_COMMANDS[name] for name in ("MEM_DATA", "FLASH_DATA", "FLASH_DEFL_DATA")]
# Error codes of a message that was not looked into: ROM 05 and 07, stub C0 and C1.
_REFUSED = re.compile(r"result was 01(05|07|C0|C1)\b", re.IGNORECASE)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Spare esptool the hex dump of each packet, which it formats even when it traces nothing.

    That is three quarters of the processor time of flashing, more than a second a MiB.
    """
    with _replaced(loader, "HexFormatter", lambda *_, **__: ""):
        yield


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Let esptool resend as the head of this module says, in small blocks."""
    with (
        _replaced(ESPLoader, "ESP_RAM_BLOCK", RAM_BLOCK_BYTES),
        _replaced(StubMixin, "FLASH_WRITE_SIZE", BLOCK_BYTES),
        _replaced(loader, "WRITE_BLOCK_ATTEMPTS", 1),  # they ignore what the device has taken
        _replaced(ESPLoader, "check_command", _resending(ESPLoader.check_command)),
    ):
        yield


def _resending(plain: Callable[..., Any]) -> Callable[..., Any]:
    since_begin: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    losses = 0

    def check_command(
        esp: ESPLoader, what: str, op: int | None = None, *arguments: Any, **options: Any
    ) -> Any:
        nonlocal losses
        if op in _BEGINS:
            since_begin.clear()
        elif op not in _BLOCKS:
            return plain(esp, what, op, *arguments, **options)
        options.setdefault("timeout", RAM_ANSWER_S)  # that of flash is given
        since_begin.append(((what, op, *arguments), options))
        at, refusals, result = len(since_begin) - 1, 0, None
        while at < len(since_begin):
            arguments, options = since_begin[at]
            try:
                result = plain(esp, *arguments, **options)
                at, refusals = at + 1, 0
            except RuntimeError as error:  # esptool's own are of this kind
                esp.flush_input()
                if _REFUSED.search(str(error)):
                    refusals += 1
                else:
                    losses, at = losses + 1, 0
                if refusals > MAX_REFUSALS or losses > MAX_LOSSES:
                    raise
        return result

    return check_command


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    usual = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, usual)
