"""ESP images: esptool is the judge of what is written."""

from __future__ import annotations

import pytest
from esptool.bin_image import LoadFirmwareImage

from espdl_hil.formats.esp_image import (
    APP_DESC,
    AppDescription,
    Header,
    Segment,
    build_image,
    checksum,
    pack_bootloader_description,
    unpack_bootloader_version,
)

DESCRIPTION = AppDescription("1.2", "a_project", bytes(range(32)), "v6.0", "today", "noon")


@pytest.mark.parametrize("size", range(4, 40, 4))
def test_esptool_accepts_an_image_of_any_length(size):
    segments = [Segment(0x40374000, bytes(range(size))), Segment(0x3FC88000, b"\xa5" * size)]
    data = build_image(Header(segments=0, entry=0x40374000, chip_id=9), segments)
    image = LoadFirmwareImage("esp32s3", data)
    image.verify()
    assert image.checksum == image.calculate_checksum()
    assert image.stored_digest == image.calc_digest
    assert [segment.addr for segment in image.segments] == [0x40374000, 0x3FC88000]
    assert len(data) % 16 == 0


def test_an_image_without_digest_ends_with_its_checksum():
    segments = [Segment(0x40374000, b"abcd")]
    data = build_image(Header(segments=0, entry=0, chip_id=9, digest=False), segments)
    assert len(data) == 48
    assert data[-1] == checksum([b"abcd"]) == 0xEF ^ ord("a") ^ ord("b") ^ ord("c") ^ ord("d")


def test_the_header_survives():
    header = Header(3, 0x4FF20000, 18, 300, 399, digest=True, flash=(2, 0x4F))
    assert Header.unpack(header.pack()) == header


def test_the_application_description_survives():
    assert len(DESCRIPTION.pack()) == APP_DESC.size == 256
    assert AppDescription.unpack(DESCRIPTION.pack() + b"more") == DESCRIPTION


def test_the_hash_of_the_elf_file_is_where_esp_idf_has_it():
    segment = Segment(0x3C000020, DESCRIPTION.pack())
    data = build_image(Header(segments=0, entry=0, chip_id=9), [segment])
    assert data[0xB0 : 0xB0 + 32] == bytes(range(32))  # pytest-embedded reads it there


def test_bytes_that_are_no_description():
    assert AppDescription.unpack(bytes(256)) is None
    assert unpack_bootloader_version(bytes(80)) is None
    assert unpack_bootloader_version(b"\x50") is None


def test_the_bootloader_description_survives():
    assert unpack_bootloader_version(pack_bootloader_description("v6.0")) == "v6.0"
