"""The partition table, whole and damaged."""

from __future__ import annotations

import hashlib
import struct

import pytest

from espdl_hil.errors import ArtifactError
from espdl_hil.formats.partition_table import Partition, find_partition, parse_partition_table

END = b"\xff" * 32


def entry(name, kind, subtype, offset, size):
    return struct.pack("<2sBBII16sI", b"\xaa\x50", kind, subtype, offset, size, name.encode(), 0)


def with_md5(entries):
    return entries + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(entries).digest() + END


ENTRIES = entry("factory", 0, 0, 0x10000, 0x100000) + entry("models", 1, 0x40, 0x110000, 0x200000)
TABLE = with_md5(ENTRIES)


def test_entries_are_read_in_order():
    assert parse_partition_table(TABLE) == (
        Partition("factory", 0, 0, 0x10000, 0x100000),
        Partition("models", 1, 0x40, 0x110000, 0x200000),
    )


def test_the_checksum_is_optional_and_the_rest_of_the_sector_is_not_read():
    assert len(parse_partition_table(ENTRIES + END + b"anything")) == 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (TABLE.replace(b"models", b"models!"[:6][::-1]), "checksum is wrong .at byte 64."),
        (b"\x00" + TABLE[1:], r"starts with 0050, expected aa50 .at byte 0."),
        (ENTRIES, "has no end"),
        (b"", "has no end"),
    ],
)
def test_damage_is_located(data, why):
    with pytest.raises(ArtifactError, match=why):
        parse_partition_table(data, label="table.bin")


def test_a_partition_is_found_by_name():
    table = parse_partition_table(TABLE)
    assert find_partition(table, "models", label="t").offset == 0x110000
    with pytest.raises(ArtifactError, match="t: no partition 'nvs', there are: factory, models"):
        find_partition(table, "nvs", label="t")
