"""Bounds-checked reading of FlatBuffers. Knows bytes and offsets, not the `.espdl` schema.

Offsets in a FlatBuffer point forward only, so reading ends; but two offsets may point at the
same bytes, and a damaged file can make a small buffer look enormous. Every byte that is read is
therefore charged to a budget of a few times the buffer's size.
"""

from __future__ import annotations

import struct
from typing import NoReturn

import numpy as np

from harness.errors import ArtifactError

BUDGET_FACTOR = 4  # a sound file is read once; shared vtables and strings need a little more
BUDGET_BASE = 4096  # bytes, for tiny buffers
_STRUCTS = {kind: struct.Struct("<" + kind) for kind in ("B", "b", "H", "I", "i", "q", "f")}


class Buffer:
    """The bytes of one FlatBuffer.

    Args:
        data: The FlatBuffer, root offset first.
        path: The file's name, for messages.
        base: Offset of *data* in the file; messages count from the file's start.
        hint: Advice that goes with every complaint.
    """

    def __init__(self, data: bytes, *, path: str, base: int, hint: str | None = None) -> None:
        self.data = data
        self.path = path
        self.base = base
        self.hint = hint
        self._left = BUDGET_FACTOR * len(data) + BUDGET_BASE

    def fail(self, message: str, position: int) -> NoReturn:
        """Raise `ArtifactError` for the byte at *position* of the buffer."""
        raise ArtifactError(
            message, path=self.path, offset=self.base + position, hint=self.hint
        ) from None

    def check(self, position: int, size: int, what: str) -> None:
        """Insist that *size* bytes at *position* are inside, and charge them to the budget."""
        if position < 0 or size > len(self.data) - position:
            room = max(len(self.data) - position, 0)
            self.fail(f"{what} needs {size} bytes, the data holds {room} more", position)
        self._left -= size
        if self._left < 0:
            self.fail(f"{what} is one of too many offsets to the same bytes", position)

    def scalar(self, kind: str, position: int, what: str) -> int | float:
        """Read one little-endian number; *kind* is a letter of the `struct` module."""
        code = _STRUCTS[kind]
        self.check(position, code.size, what)
        value: int | float = code.unpack_from(self.data, position)[0]
        return value

    def uint(self, position: int, what: str) -> int:
        """Read a u32."""
        return int(self.scalar("I", position, what))

    def follow(self, position: int, what: str) -> int:
        """Position that the u32 offset at *position* points at."""
        offset = self.uint(position, f"offset of {what}")
        target = position + offset
        if offset < 4 or target > len(self.data) - 4:
            self.fail(f"offset of {what} points to byte {self.base + target}, outside", position)
        return target

    def root(self, what: str) -> Table:
        """The root table."""
        return Table(self, self.follow(0, what), what)

    def string(self, position: int, what: str) -> str:
        """Read the UTF-8 string at *position*."""
        size = self.uint(position, f"length of {what}")
        self.check(position + 4, size, what)
        try:
            return self.data[position + 4 : position + 4 + size].decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8 text", position)

    def vector(self, position: int, itemsize: int, what: str) -> tuple[int, int]:
        """First element and length of the vector at *position*; all elements are inside."""
        count = self.uint(position, f"length of {what}")
        self.check(position + 4, count * itemsize, what)
        return position + 4, count


class Table:
    """One table of a `Buffer`.

    Args:
        buffer: Where it stands.
        position: Of the table in the buffer.
        what: Its name in messages, such as ``node 3``.
    """

    __slots__ = ("_buffer", "_position", "_size", "_vtable", "_vtable_size", "what")

    def __init__(self, buffer: Buffer, position: int, what: str) -> None:
        self.what = what
        self._buffer = buffer
        self._position = position
        vtable = position - int(buffer.scalar("i", position, what))
        if vtable < 0 or vtable > len(buffer.data) - 4:
            buffer.fail(f"{what} has its field list at byte {buffer.base + vtable}", position)
        self._vtable_size = int(buffer.scalar("H", vtable, what))
        self._size = int(buffer.scalar("H", vtable + 2, what))
        self._vtable = vtable
        if self._vtable_size < 4 or self._vtable_size % 2 or self._size < 4:
            buffer.fail(f"{what} has a field list of impossible size", vtable)
        buffer.check(vtable, self._vtable_size, f"field list of {what}")
        buffer.check(position, self._size, what)

    def fail(self, message: str) -> NoReturn:
        """Raise `ArtifactError` for this table."""
        self._buffer.fail(f"{self.what}: {message}", self._position)

    def _field(self, slot: int, size: int) -> int | None:
        entry = 4 + 2 * slot
        if entry >= self._vtable_size:
            return None
        offset = int(self._buffer.scalar("H", self._vtable + entry, self.what))
        if offset == 0:
            return None
        if offset < 4 or offset + size > self._size:
            self._buffer.fail(f"{self.what}: field {slot} is outside its table", self._position)
        return self._position + offset

    def has(self, slot: int) -> bool:
        """Whether the field is present."""
        return self._field(slot, 1) is not None

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """An integer field or one-integer struct; *kind* is a letter of the `struct` module."""
        position = self._field(slot, _STRUCTS[kind].size)
        if position is None:
            return default
        return int(self._buffer.scalar(kind, position, self.what))

    def real(self, slot: int) -> float:
        """A float32 field or struct; 0.0 when absent."""
        position = self._field(slot, 4)
        return 0.0 if position is None else float(self._buffer.scalar("f", position, self.what))

    def string(self, slot: int, what: str) -> str:
        """A string field; empty when absent."""
        position = self._field(slot, 4)
        if position is None:
            return ""
        what = f"{what} of {self.what}"
        return self._buffer.string(self._buffer.follow(position, what), what)

    def table(self, slot: int, what: str) -> Table | None:
        """A table field; None when absent."""
        position = self._field(slot, 4)
        if position is None:
            return None
        what = f"{what} of {self.what}"
        return Table(self._buffer, self._buffer.follow(position, what), what)

    def _vector(self, slot: int, itemsize: int, what: str) -> tuple[int, int] | None:
        position = self._field(slot, 4)
        if position is None:
            return None
        what = f"{what} of {self.what}"
        return self._buffer.vector(self._buffer.follow(position, what), itemsize, what)

    def tables(self, slot: int, what: str) -> list[Table]:
        """A vector of tables; element *i* is called ``<what> <i>`` in messages."""
        found = self._vector(slot, 4, what)
        if found is None:
            return []
        first, count = found
        follow = self._buffer.follow
        return [
            Table(self._buffer, follow(first + 4 * i, f"{what} {i}"), f"{what} {i}")
            for i in range(count)
        ]

    def strings(self, slot: int, what: str) -> tuple[str, ...]:
        """A vector of strings."""
        found = self._vector(slot, 4, what)
        if found is None:
            return ()
        first, count = found
        what = f"{what} of {self.what}"
        buffer = self._buffer
        return tuple(buffer.string(buffer.follow(first + 4 * i, what), what) for i in range(count))

    def numbers(self, slot: int, dtype: str, what: str) -> tuple[int | float, ...]:
        """A vector of numbers; *dtype* as NumPy spells it, such as ``<i8``."""
        found = self._vector(slot, np.dtype(dtype).itemsize, what)
        if found is None:
            return ()
        first, count = found
        return tuple(np.frombuffer(self._buffer.data, dtype, count, first).tolist())

    def blob(self, slot: int, itemsize: int, what: str) -> tuple[int, int] | None:
        """Position in the buffer and size in bytes of a vector of structs; None when absent."""
        found = self._vector(slot, itemsize, what)
        return None if found is None else (found[0], found[1] * itemsize)
