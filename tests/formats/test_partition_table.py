"""The partition table, both ways; ESP-IDF's own generator is the model for the bytes."""

from __future__ import annotations

import hashlib

import pytest

from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.formats.partition_table import (
    Partition,
    PartitionTableError,
    build_table,
    parse_csv,
    read_table,
)

CSV = """\
# Name,   Type, SubType, Offset,  Size, Flags
nvs,      data, nvs,     ,        24K,
phy_init, data, phy,     ,        0x1000,

factory,  app,  factory, ,        1M,
models,   data, 0x40,    0x200000, 2M,   readonly  # not code
"""
PARTITIONS = (
    Partition("nvs", 1, 0x02, 0x9000, 0x6000),
    Partition("phy_init", 1, 0x01, 0xF000, 0x1000),
    Partition("factory", 0, 0x00, 0x10000, 0x100000),
    Partition("models", 1, 0x40, 0x200000, 0x200000, 2),
)
FLASH_BYTES = 16 << 20


def test_csv_is_read_and_offsets_are_filled_in():
    assert parse_csv(CSV, table_offset=0x8000) == PARTITIONS


def test_apps_are_aligned_to_64_kib():
    text = "a,data,nvs,,0x1000,\nb,app,factory,,64K,\n"
    assert [p.offset for p in parse_csv(text, table_offset=0x8000)] == [0x9000, 0x10000]


@pytest.mark.parametrize(
    "line",
    [
        "just,three,fields",
        "a,data,nvs,,many,",
        "a,data,nonsense,,4K,",
        "a,data,nvs,,4K,odd",
        "a_name_of_17_char,data,nvs,,4K,",
        "größe,data,nvs,,4K,",
        ",data,nvs,,4K,",
    ],
)
def test_a_line_that_is_not_a_partition(line):
    with pytest.raises(ConfigError) as error:
        parse_csv(f"# comment\n{line}\n", table_offset=0x8000)
    fields = ", ".join(field.strip() for field in line.split(","))
    assert str(error.value) == (
        f"partition table line 2: {fields!r} is not name, type, subtype, offset, size, flags\n"
        "  hint: names have 1 to 16 ASCII letters; sizes may end in K or M; type is app, data or "
        "a number"
    )


def test_partitions_that_overlap():
    with pytest.raises(ConfigError) as error:
        parse_csv("a,data,nvs,0x9000,8K,\nb,data,nvs,0xa000,4K,\n", table_offset=0x8000)
    assert str(error.value) == (
        "partition table line 2: 'b' starts at 0xa000, inside what comes before it "
        "(ends at 0xb000)\n  hint: leave the offset empty to have it placed"
    )


def test_the_binary_form():
    table = build_table(PARTITIONS)
    assert len(table) == 0xC00
    assert table[64:96].hex() == (
        "aa5000000000010000001000" + b"factory".ljust(16, b"\x00").hex() + "00000000"
    )
    md5_entry = table[4 * 32 : 5 * 32]
    assert md5_entry[:16].hex() == "ebeb" + "ff" * 14
    assert md5_entry[16:] == hashlib.md5(table[: 4 * 32]).digest()
    assert set(table[5 * 32 :]) == {0xFF}


def test_what_was_built_is_read():
    assert read_table(build_table(PARTITIONS), flash_bytes=FLASH_BYTES) == PARTITIONS


def damaged(change):
    table = bytearray(build_table(PARTITIONS))
    change(table)
    return bytes(table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"\xff" * 0xC00, "partition 0 invalid magic number 0xffff"),
        (bytes(0xC00), "partition 0 invalid magic number 0x0"),
        (damaged(lambda t: t.__setitem__(40, 0x77)), "Incorrect MD5 checksum"),
        (damaged(lambda t: t.__setitem__(33, 0x51)), "partition 1 invalid magic number 0x51aa"),
        (
            damaged(lambda t: t.__setitem__(slice(160, 192), t[128:160])),
            "partition 5 invalid magic number 0xebeb",
        ),
        (
            build_table(PARTITIONS[:1])[:32] * (0xC00 // 32),
            "partition table has no terminating entry, not valid",
        ),
        (
            build_table((Partition("big", 1, 2, 0x9000, FLASH_BYTES),)),
            "partition 0 invalid - offset 0x9000 size 0x1000000 exceeds flash chip size 0x1000000",
        ),
    ],
)
def test_tables_that_a_bootloader_refuses(table, message):
    with pytest.raises(PartitionTableError) as error:
        read_table(table, flash_bytes=FLASH_BYTES)
    assert error.value.words == message


ENTRIES = build_table(PARTITIONS)[: 4 * 32]
END = b"\xff" * 32


def test_the_checksum_is_optional_and_the_rest_of_the_sector_is_not_read():
    assert read_table(ENTRIES + END + b"anything") == PARTITIONS


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (damaged(lambda t: t.__setitem__(40, 0x77)), "Incorrect MD5 checksum (at byte 128)"),
        (b"\x00" + ENTRIES[1:], "partition 0 invalid magic number 0x5000 (at byte 0)"),
        (ENTRIES, "partition table has no terminating entry, not valid (at byte 128)"),
        (b"", "partition table has no terminating entry, not valid (at byte 0)"),
    ],
)
def test_damage_is_located(data, why):
    with pytest.raises(ArtifactError) as error:
        read_table(data, path="table.bin")
    assert str(error.value) == f"table.bin: {why}"


def test_a_size_that_is_not_known_is_not_checked():
    big = (Partition("big", 1, 2, 0x9000, FLASH_BYTES),)
    assert read_table(build_table(big)) == big
