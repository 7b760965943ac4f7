"""Payload fields: how annotated dataclass fields become bytes. Knows no message."""

from __future__ import annotations

import dataclasses
import struct
from typing import Annotated, Any, Protocol, get_type_hints

from espdl_hil.errors import WireError

SHOWN_BYTES = 80  # of a string that is refused


class Reader:
    """Takes fields off the front of a payload.

    Args:
        data: The payload.
        what: Name of the message, for errors.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes; raises ``WireError`` if fewer are left."""
        end = self._offset + size
        if end > len(self._data):
            raise WireError(
                f"{self._what}: payload of {len(self._data)} bytes ends early: "
                f"{size} bytes expected at offset {self._offset}"
            )
        self._offset, start = end, self._offset
        return self._data[start:end]

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(len(self._data) - self._offset)

    def finish(self) -> None:
        """Raise ``WireError`` if bytes are left over."""
        left = len(self._data) - self._offset
        if left:
            raise WireError(f"{self._what}: {left} bytes left over after the last field")


class Codec(Protocol):
    """Writes and reads one field."""

    def write(self, value: Any, out: bytearray) -> None:
        """Append *value* to *out*."""

    def read(self, reader: Reader) -> Any:
        """Take the value off *reader*."""


class _Int:
    def __init__(self, code: str) -> None:
        self._struct = struct.Struct("<" + code)

    def write(self, value: int, out: bytearray) -> None:
        try:
            out += self._struct.pack(value)
        except struct.error as error:
            raise WireError(f"{value} does not fit its field: {error}") from error

    def read(self, reader: Reader) -> int:
        return int(self._struct.unpack(reader.take(self._struct.size))[0])


class _Str:
    def write(self, value: str, out: bytearray) -> None:
        data = value.encode()
        _U16.write(len(data), out)
        out += data

    def read(self, reader: Reader) -> str:
        data = reader.take(_U16.read(reader))
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise WireError(f"string field is not UTF-8: {data[:SHOWN_BYTES]!r}") from error
        if not text.isprintable():  # it will be shown on terminals and pages
            raise WireError(f"string field holds control characters: {data[:SHOWN_BYTES]!r}")
        return text


class _Fixed:
    def __init__(self, size: int) -> None:
        self._size = size

    def write(self, value: bytes, out: bytearray) -> None:
        if len(value) != self._size:
            raise WireError(f"field of {self._size} bytes got {len(value)}")
        out += value

    def read(self, reader: Reader) -> bytes:
        return reader.take(self._size)


class _Rest:
    def write(self, value: bytes, out: bytearray) -> None:
        out += value

    def read(self, reader: Reader) -> bytes:
        return reader.rest()


class Record:
    """The dataclass *kind*, field by field."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self._fields = fields_of(kind)

    def write(self, value: Any, out: bytearray) -> None:
        """Append every field of *value* to *out*."""
        for name, codec in self._fields:
            codec.write(getattr(value, name), out)

    def read(self, reader: Reader) -> Any:
        """Take every field off *reader*."""
        return self.kind(**{name: codec.read(reader) for name, codec in self._fields})


class Counted:
    """A count and that many items."""

    def __init__(self, count: _Int, item: Codec) -> None:
        self._count = count
        self.item = item

    def write(self, value: tuple[Any, ...], out: bytearray) -> None:
        """Append the count and every item to *out*."""
        self._count.write(len(value), out)
        for item in value:
            self.item.write(item, out)

    def read(self, reader: Reader) -> tuple[Any, ...]:
        """Take the count and that many items off *reader*."""
        return tuple(self.item.read(reader) for _ in range(self._count.read(reader)))


_U8 = _Int("B")
_U16 = _Int("H")
_U32 = _Int("I")

U8 = Annotated[int, _U8]
U16 = Annotated[int, _U16]
U32 = Annotated[int, _U32]
U64 = Annotated[int, _Int("Q")]
I16 = Annotated[int, _Int("h")]
Text = Annotated[str, _Str()]
Hash = Annotated[bytes, _Fixed(32)]
Data = Annotated[bytes, _Rest()]
Dims = Annotated[tuple[int, ...], Counted(_U8, _U32)]


def counted(kind: type[Any]) -> Codec:
    """Return the codec of ``count u16`` and that many dataclasses *kind*."""
    return Counted(_U16, Record(kind))


def codec_of(annotation: Any) -> Codec:
    """Return the codec that an annotation such as ``U8`` stands for."""
    codec: Codec = annotation.__metadata__[0]
    return codec


def fields_of(kind: type[Any]) -> tuple[tuple[str, Codec], ...]:
    """Return name and codec of each field of dataclass *kind*, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field.name, codec_of(hints[field.name])) for field in dataclasses.fields(kind))
