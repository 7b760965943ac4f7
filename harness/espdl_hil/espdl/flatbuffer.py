"""Bounds-checked reading of FlatBuffers. Knows bytes and offsets, not the `.espdl` schema.

Offsets in a FlatBuffer point forward only, so reading ends; but two offsets may point at the
same bytes, and a damaged file can make a small buffer look enormous. Every byte of a table,
string or vector is therefore charged to a budget of a few times the buffer's size.

Names in messages are put together when something is wrong, not before: a sound file of 20 nodes
has 3,000 fields.
"""

from __future__ import annotations

import struct
from typing import NoReturn

import numpy as np

from espdl_hil.errors import ArtifactError

BUDGET_FACTOR = 2  # a sound file needs about 1: each byte is read once
BUDGET_BASE = 4096  # bytes, for tiny buffers
_U16 = struct.Struct("<H").unpack_from
_I32 = struct.Struct("<i").unpack_from
_U32 = struct.Struct("<I").unpack_from
_NUMBERS = {kind: struct.Struct("<" + kind) for kind in "Bbiqf"}


class Buffer:
    """The bytes of one FlatBuffer.

    Args:
        data: The FlatBuffer, root offset first.
        path: The file's name, for messages.
        base: Offset of *data* in the file; messages count from the file's start.
        hint: Advice that goes with every complaint.

    Attributes:
        data: As given.
        base: As given.
    """

    def __init__(self, data: bytes, *, path: str, base: int, hint: str | None = None) -> None:
        self.data = data
        self.base = base
        self._path = path
        self._hint = hint
        self._left = BUDGET_FACTOR * len(data) + BUDGET_BASE
        self._fields: dict[int, tuple[int, ...]] = {}

    def fail(self, message: str, position: int) -> NoReturn:
        """Raise `ArtifactError` for the byte at *position* of the buffer."""
        raise ArtifactError(message, path=self._path, offset=self.base + position, hint=self._hint)

    def root(self) -> Table:
        """The root table."""
        if len(self.data) < 8:
            self.fail(f"{len(self.data)} bytes hold no model", 0)
        return Table(self, self.follow(0, "model", None), "model", None)

    def follow(self, position: int, what: str, owner: Table | None) -> int:
        """Where the offset at *position*, which is inside, points: 4 readable bytes."""
        offset: int = _U32(self.data, position)[0]
        target = position + offset
        if offset < 4 or target > len(self.data) - 4:
            self.fail(
                f"offset of {_name(what, owner)} points to byte {self.base + target}, outside",
                position,
            )
        return target

    def take(self, position: int, size: int, what: str, owner: Table | None) -> None:
        """Insist that *size* bytes at *position* are inside, and charge them to the budget."""
        room = len(self.data) - position
        if size > room:
            self.fail(f"{_name(what, owner)} needs {size} bytes, {room} are left", position)
        self._left -= size
        if self._left < 0:
            self.fail(
                f"{_name(what, owner)} is one of too many offsets to the same bytes", position
            )

    def fields(self, position: int, table: Table) -> tuple[int, ...]:
        """Field list at *position*: size of the table, then the offset of each field or 0."""
        known = self._fields.get(position)
        if known is not None:
            return known
        if not 0 <= position <= len(self.data) - 4:
            table.fail(f"its field list is at byte {self.base + position}, outside")
        size: int = _U16(self.data, position)[0]
        if size < 4 or size % 2:
            table.fail(f"its field list has {size} bytes")
        self.take(position, size, "field list", table)
        entries = np.frombuffer(self.data, "<u2", size // 2 - 1, position + 2).tolist()
        if entries[0] < 4:
            table.fail(f"it has {entries[0]} bytes by its field list, less than 4")
        self._fields[position] = tuple(entries)
        return self._fields[position]


def _name(what: str, owner: Table | None) -> str:
    return what if owner is None else f"{what} of {owner.name}"


class Table:
    """One table of a `Buffer`.

    Args:
        buffer: Where it stands.
        position: Of the table in the buffer; its first 4 bytes are inside.
        what: What to call it in messages, such as ``node 3``.
        owner: The table that refers to it; None when *what* says enough.
    """

    __slots__ = ("_fields", "_owner", "_position", "_what", "buffer")

    def __init__(self, buffer: Buffer, position: int, what: str, owner: Table | None) -> None:
        self.buffer = buffer
        self._position = position
        self._what = what
        self._owner = owner
        self._fields = buffer.fields(position - _I32(buffer.data, position)[0], self)
        buffer.take(position, self._fields[0], what, owner)

    @property
    def name(self) -> str:
        """What messages call it."""
        return _name(self._what, self._owner)

    def call(self, name: str) -> None:
        """Add the table's own name to what messages call it."""
        self._what = f"{self._what} ({name!r})"

    def fail(self, message: str) -> NoReturn:
        """Raise `ArtifactError` for this table."""
        self.buffer.fail(f"{self.name}: {message}", self._position)

    def _field(self, slot: int, size: int) -> int:
        """Position of a field of *size* bytes; 0 when it is absent."""
        fields = self._fields
        offset = fields[slot + 1] if slot + 1 < len(fields) else 0
        if offset == 0:
            return 0
        if offset < 4 or offset + size > fields[0]:
            self.fail(f"field {slot} is outside its table")
        return self._position + offset

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """An integer field or one-integer struct; *kind* is a letter of the `struct` module."""
        code = _NUMBERS[kind]
        position = self._field(slot, code.size)
        return int(code.unpack_from(self.buffer.data, position)[0]) if position else default

    def real(self, slot: int) -> float:
        """A float32 field or struct; 0.0 when absent."""
        position = self._field(slot, 4)
        return float(_NUMBERS["f"].unpack_from(self.buffer.data, position)[0]) if position else 0.0

    def string(self, slot: int, what: str) -> str:
        """A string field; empty when absent."""
        position = self._field(slot, 4)
        return self._string(self.buffer.follow(position, what, self), what) if position else ""

    def _string(self, position: int, what: str) -> str:
        size = _U32(self.buffer.data, position)[0]
        self.buffer.take(position + 4, size, what, self)
        try:
            return self.buffer.data[position + 4 : position + 4 + size].decode()
        except UnicodeDecodeError:
            self.buffer.fail(f"{_name(what, self)} is not UTF-8 text", position)

    def table(self, slot: int, what: str) -> Table | None:
        """A table field; None when absent."""
        position = self._field(slot, 4)
        if not position:
            return None
        return Table(self.buffer, self.buffer.follow(position, what, self), what, self)

    def _vector(self, slot: int, itemsize: int, what: str) -> tuple[int, int]:
        """First element and length of a vector, all inside; nothing when absent."""
        position = self._field(slot, 4)
        if not position:
            return 0, 0
        position = self.buffer.follow(position, what, self)
        count = _U32(self.buffer.data, position)[0]
        self.buffer.take(position + 4, count * itemsize, what, self)
        return position + 4, count

    def tables(self, slot: int, what: str, *, of_owner: bool = True) -> list[Table]:
        """A vector of tables.

        Args:
            slot: The field.
            what: Element *i* is called ``<what> <i>`` in messages.
            of_owner: Messages say whose element it is.
        """
        first, count = self._vector(slot, 4, what)
        buffer, owner = self.buffer, self if of_owner else None
        return [
            Table(buffer, buffer.follow(first + 4 * i, what, self), f"{what} {i}", owner)
            for i in range(count)
        ]

    def strings(self, slot: int, what: str) -> tuple[str, ...]:
        """A vector of strings."""
        first, count = self._vector(slot, 4, what)
        follow = self.buffer.follow
        return tuple(self._string(follow(first + 4 * i, what, self), what) for i in range(count))

    def integers(self, slot: int, what: str) -> tuple[int, ...]:
        """A vector of int64."""
        first, count = self._vector(slot, 8, what)
        return struct.unpack_from(f"<{count}q", self.buffer.data, first)

    def numbers(
        self, slot: int, dtype: str, what: str
    ) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
        """A vector of numbers, read-only; *dtype* as NumPy spells it, such as ``<f4``."""
        first, count = self._vector(slot, np.dtype(dtype).itemsize, what)
        return np.frombuffer(self.buffer.data, dtype, count, first)

    def blob(self, slot: int, itemsize: int, what: str) -> tuple[int, int]:
        """Position in the buffer and size in bytes of a vector of structs; size 0 when absent."""
        first, count = self._vector(slot, itemsize, what)
        return first, count * itemsize
