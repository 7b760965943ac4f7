"""ESP images: esptool is the judge of what is written."""

from __future__ import annotations

import pytest
from esptool.bin_image import LoadFirmwareImage

from espdl_hil.formats.esp_image import (
    APP_DESC,
    AppDescription,
    build_image,
    pack_bootloader_description,
    read_header,
    read_image,
    unpack_bootloader_version,
)

DESCRIPTION = AppDescription("1.2", "a_project", bytes(range(32)), "v6.0", "today", "noon")


@pytest.mark.parametrize("size", range(4, 40, 4))
def test_an_image_of_any_length(size):
    segments = [(0x3FC88000, b"\xa5" * size), (0x40374000, bytes(range(size)))]
    data = build_image("esp32s3", segments, entry=0x40374000)
    image = LoadFirmwareImage("esp32s3", data)
    image.verify()
    assert image.checksum == image.calculate_checksum()
    assert image.stored_digest == image.calc_digest
    assert [(segment.addr, segment.data) for segment in image.segments] == segments
    assert len(data) % 16 == 0


def test_an_image_without_digest_ends_with_its_checksum():
    data = build_image("esp32s3", [(0x40374000, b"abcd")], digest=False)
    assert len(data) == 48
    assert data[-1] == 0xEF ^ ord("a") ^ ord("b") ^ ord("c") ^ ord("d")
    assert not read_image("esp32s3", data).append_digest


def test_the_header_survives():
    data = build_image(
        "esp32p4", [], entry=0x4FF20000, revisions=(300, 399), flash=(2, 0x4F), digest=True
    )
    image, count = read_header("esp32p4", data[:24])
    assert count == 0
    assert (image.entrypoint, image.chip_id) == (0x4FF20000, 18)
    assert (image.min_rev, image.min_rev_full, image.max_rev_full) == (3, 300, 399)
    assert (image.flash_mode, image.flash_size_freq, image.append_digest) == (2, 0x4F, True)


def test_an_image_of_another_chip_shows_its_own_id():
    data = build_image("esp32p4", [(0x4FF20000, b"abcd")])
    assert read_image("esp32s3", data).chip_id == 18


def test_damage_shows_in_checksum_and_digest():
    data = bytearray(build_image("esp32s3", [(0x40374000, b"abcd")]))
    data[32] ^= 1
    image = read_image("esp32s3", bytes(data))
    assert image.checksum != image.calculate_checksum()
    assert image.stored_digest != image.calc_digest


def test_the_application_description_survives():
    assert len(DESCRIPTION.pack()) == APP_DESC.size == 256
    assert AppDescription.unpack(DESCRIPTION.pack() + b"more") == DESCRIPTION


def test_the_hash_of_the_elf_file_is_where_esp_idf_has_it():
    data = build_image("esp32s3", [(0x3C000020, DESCRIPTION.pack())])
    assert data[0xB0 : 0xB0 + 32] == bytes(range(32))  # pytest-embedded reads it there


def test_bytes_that_are_no_description():
    assert AppDescription.unpack(bytes(256)) is None
    assert AppDescription.unpack(DESCRIPTION.pack()[:-1]) is None
    assert unpack_bootloader_version(bytes(80)) is None
    assert unpack_bootloader_version(b"\x50") is None


def test_the_bootloader_description_survives():
    assert unpack_bootloader_version(pack_bootloader_description("v6.0")) == "v6.0"
