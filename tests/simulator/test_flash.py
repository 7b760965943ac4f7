"""NOR semantics, and a flash that outlives its devkit."""

from __future__ import annotations

import hashlib

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.simulator.flash import NorFlash

MIB = 1 << 20


@pytest.fixture
def flash():
    flash = NorFlash(MIB)
    yield flash
    flash.close()


def test_it_comes_erased(flash):
    assert flash.read(0, MIB) == b"\xff" * MIB


def test_programming_only_clears_bits(flash):
    flash.program(100, b"\xf0\x0f\xff")
    flash.program(100, b"\x3c\x3c\x00")
    assert flash.read(99, 5) == b"\xff\x30\x0c\x00\xff"


def test_erasing_sets_whole_sectors(flash):
    flash.program(0, bytes(3 * 4096))
    flash.erase(4096 + 17, 1)
    assert flash.read(0, 3 * 4096) == bytes(4096) + b"\xff" * 4096 + bytes(4096)


def test_erasing_nothing_erases_nothing(flash):
    flash.program(0, bytes(4096))
    flash.erase(0, 0)
    assert flash.read(0, 4096) == bytes(4096)


def test_what_is_beyond_the_end_is_lost(flash):
    flash.program(MIB - 2, b"\x01\x02\x03\x04")
    assert flash.read(MIB - 2, 10) == b"\x01\x02"
    flash.program(MIB + 5, b"\x00")
    flash.erase(MIB - 1, 100)
    assert flash.read(MIB - 4096, 5000) == b"\xff" * 4096


def test_md5_of_a_range(flash):
    flash.program(10, b"hello")
    assert flash.md5(10, 5) == hashlib.md5(b"hello").digest()


@pytest.mark.parametrize(("size", "code"), [(4 * MIB, 0x16), (16 * MIB, 0x18), (32 * MIB, 0x19)])
def test_the_jedec_id_names_the_size(size, code):
    flash = NorFlash(size)
    assert flash.jedec_id == code << 16 | 0x4020
    flash.close()


@pytest.mark.parametrize("size", [0, 3 * MIB, MIB // 2, 256 * MIB])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ConfigError) as error:
        NorFlash(size)
    assert str(error.value) == (
        f"flash_bytes is {size}; expected a power of two from 1 MiB to 128 MiB\n"
        "  hint: 16 * 1024 * 1024 is what the devkits carry"
    )


def test_a_file_keeps_the_contents(tmp_path):
    file = tmp_path / "flash.bin"
    flash = NorFlash(MIB, file)
    assert flash.read(0, 4) == b"\xff" * 4
    flash.program(0, b"kept")
    flash.close()
    again = NorFlash(MIB, file)
    assert again.read(0, 4) == b"kept"
    again.close()
    assert file.read_bytes()[:4] == b"kept"


def test_a_file_of_another_size_is_refused(tmp_path):
    file = tmp_path / "flash.bin"
    file.write_bytes(b"short")
    with pytest.raises(ConfigError) as error:
        NorFlash(MIB, file)
    assert str(error.value) == (
        f"{file}: flash file has 5 bytes, the devkit has {MIB}\n"
        "  hint: delete the file, or set flash_bytes to its size"
    )


def test_a_file_that_cannot_be_made_is_refused(tmp_path):
    file = tmp_path / "nowhere" / "flash.bin"
    with pytest.raises(ConfigError) as error:
        NorFlash(MIB, file)
    assert str(error.value) == f"{file}: cannot use it as flash file: No such file or directory"
