"""Arrays of an ``.npz`` file and members of a zip: every size is checked before it is allocated.

A zip names the size of a member before its bytes come, and may lie; a header of an array names
its shape, and may lie too. Neither is believed.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MAX_MEMBERS = 2**20
ROOM_FACTOR, ROOM_BYTES = 16, 2**27  # all members together: 16 times the file and 128 MiB
UNREADABLE = (  # what zipfile and NumPy raise for damage
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, MemoryError),
    tokenize.TokenError,
)


def read_members(source: Path, *, most: int, limits: Mapping[str, int]) -> dict[str, bytes]:
    """All members of a zip by name.

    Args:
        source: The file.
        most: Members that there may be.
        limits: The most bytes of members of these names.

    Raises:
        ValueError: There are too many members, or too large ones, or two of one name. Damage
            raises one of `UNREADABLE`.
    """
    with zipfile.ZipFile(source) as archive:
        members = _listed(archive, most)
        for info in members:
            if info.file_size > limits.get(info.filename, info.file_size):
                raise ValueError(f"{info.filename!r} has {info.file_size} bytes")
        return {info.filename: _content(archive, info) for info in members}


def read_npz(source: Path | IO[bytes], *, room: int | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name, read-only; numbers only.

    Args:
        source: The file.
        room: The most bytes of all members; None for a multiple of the file's size.

    Raises:
        ValueError: An array is no array of numbers, or the file asks for too much memory. Damage
            raises one of `UNREADABLE`.
    """
    with zipfile.ZipFile(source) as archive:
        return {
            info.filename.removesuffix(".npy"): _array(archive, info)
            for info in _listed(archive, MAX_MEMBERS, room)
        }


def _listed(archive: zipfile.ZipFile, most: int, room: int | None = None) -> list[zipfile.ZipInfo]:
    """The members, if they are few and small enough."""
    members = archive.infolist()
    assert archive.fp is not None  # it is open
    if room is None:
        room = ROOM_FACTOR * archive.fp.seek(0, 2) + ROOM_BYTES
    total = sum(info.file_size for info in members)
    if len(members) > most:
        raise ValueError(f"{len(members)} members, expected {most} or fewer")
    if total > room:
        raise ValueError(f"its members have {total} bytes, {room} are the most for its size")
    if len({info.filename for info in members}) != len(members):
        raise ValueError("two members share a name")
    if any(
        info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members
    ):
        raise ValueError("a member is neither stored nor deflated")
    return members


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        return member.read(info.file_size)  # no more, whatever the stream expands to


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{info.filename!r}: version {version} of an array's header")
        shape, fortran, dtype = readers[version](member)
        size, room = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if dtype.kind not in "biufc" or any(dim < 0 for dim in shape):
            raise ValueError(f"{info.filename!r}: {dtype} {shape} are no numbers")
        if size != room:
            raise ValueError(
                f"{info.filename!r}: {dtype} {shape} has {size} bytes, {room} are there"
            )
        data = member.read(room)
    if len(data) != size:
        raise ValueError(f"{info.filename!r}: its data ends early")
    # NumPy multiplies lengths in 64 bits even beside a 0
    if math.prod(dim for dim in shape if dim) > np.iinfo(np.intp).max:
        raise ValueError(f"{info.filename!r}: impossible shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
