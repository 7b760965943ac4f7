"""The partition table: where in flash the models package goes. Knows bytes, not devices."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from espdl_hil.errors import ArtifactError

ENTRY_BYTES: Final = 32
TABLE_BYTES: Final = 0xC00  # ESP-IDF gen_esp32part.py MAX_PARTITION_LENGTH
_ENTRY = struct.Struct("<2sBBII16sI")
_ENTRY_MAGIC = b"\xaa\x50"
_MD5_MAGIC = b"\xeb\xeb" + b"\xff" * 14
_END = b"\xff" * ENTRY_BYTES


@dataclass(frozen=True)
class Partition:
    """One entry of the table.

    Attributes:
        name: Label, unique in the table.
        type: 0 app, 1 data, from 0x40 on the application's own.
        subtype: Meaning depends on *type*.
        offset: Flash address, bytes.
        size: Bytes.
    """

    name: str
    type: int
    subtype: int
    offset: int
    size: int


def parse_partition_table(data: bytes, *, label: str = "<bytes>") -> tuple[Partition, ...]:
    """Parse the binary table that ESP-IDF builds.

    Args:
        data: The table, from its first byte; what follows its end is not read.
        label: What errors call it.

    Returns:
        The entries in table order.

    Raises:
        ArtifactError: The table is damaged, has no end, or its checksum is wrong.
    """
    partitions: list[Partition] = []
    for at in range(0, len(data) - ENTRY_BYTES + 1, ENTRY_BYTES):
        entry = data[at : at + ENTRY_BYTES]
        if entry == _END:
            return tuple(partitions)
        if entry[:16] == _MD5_MAGIC:
            if hashlib.md5(data[:at], usedforsecurity=False).digest() != entry[16:]:
                raise ArtifactError("partition table checksum is wrong", path=label, offset=at)
            continue
        magic, kind, subtype, offset, size, name, _flags = _ENTRY.unpack(entry)
        if magic != _ENTRY_MAGIC:
            raise ArtifactError(
                f"partition entry starts with {magic.hex()}, expected {_ENTRY_MAGIC.hex()}",
                path=label,
                offset=at,
            )
        text = name.rstrip(b"\0").decode("utf-8", errors="replace")
        partitions.append(Partition(text, kind, subtype, offset, size))
    raise ArtifactError("partition table has no end", path=label, offset=len(data))


def find_partition(table: tuple[Partition, ...], name: str, *, label: str) -> Partition:
    """The partition called *name*.

    Raises:
        ArtifactError: There is none; lists those there are.
    """
    for partition in table:
        if partition.name == name:
            return partition
    names = ", ".join(partition.name for partition in table) or "none"
    raise ArtifactError(
        f"no partition {name!r}, there are: {names}",
        path=label,
        hint="the firmware's partitions.csv must have a models partition",
    )
