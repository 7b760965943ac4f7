"""The exception tree, ordered by who must act.

Every message says what failed, what was expected and what to do next; the
plugin prints it as it is, without a traceback.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def printable(text: str) -> str:
    r"""Text from elsewhere as a terminal, a log viewer and a page may show it.

    Args:
        text: Of a device, a file, a bundle or another library.

    Returns:
        *text* without whole escape sequences (colours, titles, links); any other character that
        controls, hides or reorders, and half a surrogate pair, is written out. Line ends, tabs
        and all that is visible stay.

    >>> printable("\x1b[31mred\x1b[0m\r\u202e\t\n")
    'red\\r\\u202e\t\n'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\t\n" or unicodedata.category(c) == "Zs" else _spelt(c)
        for c in _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n"))
    )


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class HarnessError(Exception):
    """Base of every error that the harness raises on purpose.

    Args:
        message: What failed and what was expected.
        hint: What to do next; printed on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.hint = hint and printable(hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class ConfigError(HarnessError):
    """The user's options, model file or environment; becomes ``pytest.UsageError``."""


class BusyError(ConfigError):
    """Every board that would do is in use, or taken out of service; it may not be so later."""


class ArtifactError(HarnessError):
    """A file that an exporter wrote is damaged or says something impossible.

    Args:
        message: What was found and what was expected.
        path: The file, or a label for bytes that came from elsewhere.
        offset: Byte offset of the fault in the file; None when it has none.
        hint: What to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        where = "" if path is None else f"{path}: "
        at = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{where}{message}{at}", hint=hint)
        self.path = path
        self.offset = offset


class UnsupportedOpError(ArtifactError):
    """The graph holds operators, types or attributes that ESP-DL cannot run, or runs wrongly.

    Attributes:
        nodes: Name, operator and reason of each node at fault.
    """

    nodes: Sequence[tuple[str, str, str]] = ()


class StreamingError(HarnessError):
    """The model cannot stream as written; the model's author must edit it.

    Args:
        message: Why this node cannot stream.
        rule: Rule id, stable, see ``docs/rules.md``.
        node: Name of the node at fault.
        hint: The edit that would help.

    Attributes:
        reason: *message* alone.
        chunk_frames: The chunk sizes that it holds for; empty when it holds for all.
        others: What else is wrong with the model, each as the attributes of such an error.
    """

    def __init__(self, message: str, *, rule: str, node: str, hint: str | None = None) -> None:
        super().__init__(f"[{rule}] {node}: {message}", hint=hint)
        self.rule = rule
        self.node = node
        self.reason = message
        self.chunk_frames: list[int] = []
        self.others: list[dict[str, Any]] = []

    @property
    def every(self) -> list[StreamingError]:
        """This error and the others, each for itself."""
        found = []
        for state in ({**vars(self), "others": []}, *self.others):
            error = StreamingError.__new__(StreamingError, state["message"])
            vars(error).update(state)
            found.append(error)
        return found

    def about(self, chunk_frames: int) -> StreamingError:
        """What of it holds for one chunk size, which is one of those that are refused."""
        first, *rest = (
            fault
            for fault in self.every
            if not fault.chunk_frames or chunk_frames in fault.chunk_frames
        )
        first.others = [vars(fault) for fault in rest]
        return first

    def __str__(self) -> str:
        if not self.others:
            return super().__str__()
        return "\n".join(map(str, self.every))


class QuantizeError(HarnessError):
    """The quantize worker failed.

    Args:
        message: What failed, with the exporter's own words where it has any.
        stage: ``build``, ``calibrate``, ``plan``, ``export`` or ``check``.
        hint: What to do next.
    """

    def __init__(self, message: str, *, stage: str, hint: str | None = None) -> None:
        super().__init__(f"quantize ({stage}): {message}", hint=hint)
        self.stage = stage


class WireError(HarnessError):
    """Bytes or packets that break the protocol; ``harness/espdl_hil/wire`` refines it."""


class DeviceError(HarnessError):
    """The device under test, its port or its firmware misbehaved.

    Args:
        message: What failed and what was expected.
        port: The port as the user names it.
        console_tail: The last console lines of the device; empty when there were none.
        hint: What to do next.

    Attributes:
        where: In a run; empty if that is not known.
    """

    def __init__(
        self, message: str, *, port: str, console_tail: str = "", hint: str | None = None
    ) -> None:
        tail = f"\n  console: {console_tail}" if console_tail else ""
        super().__init__(f"{port}: {message}{tail}", hint=hint)
        self.port = port
        self.console_tail = console_tail
        self.where = ""

    def locate(self, where: str) -> None:
        """Say in the message where in a run it happened; whoever says it first is right."""
        if not self.where:
            self.where = printable(where)
            start = f"{self.port}: "
            self.message = f"{start}{self.where}: {self.message.removeprefix(start)}"
