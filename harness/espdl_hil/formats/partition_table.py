"""The partition table: CSV to entries, entries to binary and back. Knows no flash, no console."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from espdl_hil.errors import ArtifactError, ConfigError

ENTRY = struct.Struct("<HBBII16sI")  # magic, type, subtype, offset, size, label, flags
MAGIC = 0x50AA
MAGIC_MD5 = 0xEBEB  # the digest of all entries before it
TABLE_BYTES = 0xC00
LABEL_BYTES = 16
TABLE_SECTOR_BYTES = 0x1000

APP, DATA = 0, 1
FACTORY = 0
_TYPES = {"app": APP, "data": DATA}
_SUBTYPES = {
    APP: {"factory": 0x00, "test": 0x20} | {f"ota_{slot}": 0x10 + slot for slot in range(16)},
    DATA: {
        "ota": 0x00,
        "phy": 0x01,
        "nvs": 0x02,
        "coredump": 0x03,
        "nvs_keys": 0x04,
        "efuse": 0x05,
        "undefined": 0x06,
        "fat": 0x81,
        "spiffs": 0x82,
        "littlefs": 0x83,
    },
}
_FLAGS = {"encrypted": 1, "readonly": 2}
_ALIGNMENT = {APP: 0x10000, DATA: 0x1000}  # as ESP-IDF's generator aligns


@dataclass(frozen=True)
class Partition:
    """One entry of the table.

    Attributes:
        label: Name, at most 16 bytes of ASCII.
        type: 0 app, 1 data, or another number.
        subtype: Meaning depends on the type.
        offset: First byte in flash.
        size: Bytes.
        flags: Bit 0 encrypted, bit 1 read-only.
    """

    label: str
    type: int
    subtype: int
    offset: int
    size: int
    flags: int = 0


class PartitionTableError(ArtifactError):
    """A table that a bootloader refuses, in the chip's own *words*, for its entry *index*."""

    def __init__(self, words: str, index: int, path: str | None) -> None:
        super().__init__(words, path=path, offset=index * ENTRY.size)
        self.words = words


def parse_csv(text: str, *, table_offset: int) -> tuple[Partition, ...]:
    """Read a partition table as ESP-IDF projects write it.

    Args:
        text: CSV lines: name, type, subtype, offset, size, flags.
        table_offset: Where the table will be; partitions without an offset follow it.

    Returns:
        The partitions in file order, offsets filled in.

    Raises:
        ConfigError: A line is wrong, or two partitions overlap.
    """
    partitions: list[Partition] = []
    end = table_offset + TABLE_SECTOR_BYTES
    for number, line in enumerate(text.splitlines(), 1):
        fields = [field.strip() for field in line.partition("#")[0].split(",")]
        if fields == [""]:
            continue
        partition = _parse_line(fields, number, end)
        if partition.offset < end:
            raise ConfigError(
                f"partition table line {number}: {partition.label!r} starts at "
                f"{partition.offset:#x}, inside what comes before it (ends at {end:#x})",
                hint="leave the offset empty to have it placed",
            )
        partitions.append(partition)
        end = partition.offset + partition.size
    return tuple(partitions)


def _parse_line(fields: list[str], number: int, end: int) -> Partition:
    try:
        label, kind, subtype, offset, size, *rest = fields
        type_ = _TYPES[kind] if kind in _TYPES else int(kind, 0)
        subtypes = _SUBTYPES.get(type_, {})
        alignment = _ALIGNMENT.get(type_, 0x1000)
        return Partition(
            label=_label(label),
            type=type_,
            subtype=subtypes[subtype] if subtype in subtypes else int(subtype, 0),
            offset=_bytes(offset) if offset else -(-end // alignment) * alignment,
            size=_bytes(size),
            flags=sum(_FLAGS[flag] for flag in (rest[0].split(":") if rest and rest[0] else ())),
        )
    except (ValueError, KeyError):
        raise ConfigError(
            f"partition table line {number}: {', '.join(fields)!r} is not "
            "name, type, subtype, offset, size, flags",
            hint="names have 1 to 16 ASCII letters; sizes may end in K or M; type is app, data or "
            "a number",
        ) from None


def _label(text: str) -> str:
    if not 0 < len(text.encode("ascii")) <= LABEL_BYTES:
        raise ValueError("empty, or longer than its field")
    return text


def _bytes(text: str) -> int:
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:].upper())
    return int(text, 0) if scale is None else int(text[:-1], 0) * scale


def build_table(partitions: tuple[Partition, ...]) -> bytes:
    """Encode a table with its MD5 entry, padded with ones to ``TABLE_BYTES``."""
    entries = b"".join(
        ENTRY.pack(
            MAGIC,
            partition.type,
            partition.subtype,
            partition.offset,
            partition.size,
            partition.label.encode("ascii"),
            partition.flags,
        )
        for partition in partitions
    )
    digest = hashlib.md5(entries, usedforsecurity=False).digest()
    table = entries + struct.pack("<H14x", MAGIC_MD5).replace(b"\x00", b"\xff") + digest
    return table.ljust(TABLE_BYTES, b"\xff")


def read_table(
    table: bytes, *, flash_bytes: int | None = None, path: str | None = None
) -> tuple[Partition, ...]:
    """Read a table with a bootloader's checks.

    Args:
        table: From its first byte; what follows its end is not read.
        flash_bytes: Size of the flash chip; None when it is not known.
        path: Where the table comes from, for errors.

    Returns:
        The partitions in table order.

    Raises:
        PartitionTableError: A bootloader would refuse it.
    """
    partitions: list[Partition] = []
    md5_seen = False
    whole = table[: min(len(table), TABLE_BYTES) // ENTRY.size * ENTRY.size]
    for index, (magic, type_, subtype, offset, size, label, flags) in enumerate(
        ENTRY.iter_unpack(whole)
    ):
        at = index * ENTRY.size
        if magic == MAGIC:
            if flash_bytes is not None and offset + size > flash_bytes:
                raise PartitionTableError(
                    f"partition {index} invalid - offset {offset:#x} size {size:#x} "
                    f"exceeds flash chip size {flash_bytes:#x}",
                    index,
                    path,
                )
            name = label.split(b"\x00")[0].decode("ascii", "replace")
            partitions.append(Partition(name, type_, subtype, offset, size, flags))
        elif magic == MAGIC_MD5 and not md5_seen:
            digest = hashlib.md5(table[:at], usedforsecurity=False).digest()
            if table[at + 16 : at + ENTRY.size] != digest:
                raise PartitionTableError("Incorrect MD5 checksum", index, path)
            md5_seen = True
        elif magic == 0xFFFF and type_ == subtype == 0xFF and index > 0:
            return tuple(partitions)
        else:
            words = f"partition {index} invalid magic number {magic:#x}"
            raise PartitionTableError(words, index, path)
    raise PartitionTableError(
        "partition table has no terminating entry, not valid", len(whole) // ENTRY.size, path
    )
