"""The ESP image: esptool's own classes write and read it; its two descriptions are added here."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from esptool.bin_image import ELFSection
from esptool.targets import CHIP_DEFS

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = 0xE9
HEADER_BYTES: Final = 24
SEGMENT: Final = struct.Struct("<II")  # load address, bytes
MAX_SEGMENTS: Final = 16
DIGEST_BYTES: Final = 32
REVISION_ANY: Final = 0xFFFF
FLASH_DIO_80M: Final = (2, 0x0F)  # header bytes 2 and 3: SPI mode; size (here 1 MB) and frequency

APP_DESC_OFFSET: Final = 0x20  # after the header and the first segment's
APP_DESC_MAGIC: Final = 0xABCD5432
APP_DESC: Final = struct.Struct("<II8x32s32s16s16s32s32sHHBB2x72x")
BOOTLOADER_DESC_MAGIC: Final = 0x50
BOOTLOADER_DESC: Final = struct.Struct("<B3xI32s24s16x")


@dataclass(frozen=True)
class AppDescription:
    """What an application says about itself (``esp_app_desc_t``)."""

    version: str
    project: str
    elf_sha256: bytes  # 32 of them
    idf_version: str
    date: str = ""
    time: str = ""

    def pack(self) -> bytes:
        """Encode, 256 bytes."""
        return APP_DESC.pack(
            APP_DESC_MAGIC,
            0,
            self.version.encode()[:31],
            self.project.encode()[:31],
            self.time.encode()[:15],
            self.date.encode()[:15],
            self.idf_version.encode()[:31],
            self.elf_sha256,
            0,
            REVISION_ANY,
            16,  # log2 of the MMU page
            0,
        )

    @classmethod
    def unpack(cls, data: bytes) -> AppDescription | None:
        """Decode; None when *data* is too short or the magic word is missing."""
        if len(data) < APP_DESC.size:
            return None
        magic, _secure, version, project, time, date, idf, sha, *_ = APP_DESC.unpack_from(data)
        if magic != APP_DESC_MAGIC:
            return None
        return cls(_text(version), _text(project), sha, _text(idf), _text(date), _text(time))


def pack_bootloader_description(idf_version: str) -> bytes:
    """Encode ``esp_bootloader_desc_t``, 80 bytes."""
    return BOOTLOADER_DESC.pack(BOOTLOADER_DESC_MAGIC, 1, idf_version.encode()[:31], b"")


def unpack_bootloader_version(data: bytes) -> str | None:
    """Return the ESP-IDF version of a bootloader's first segment; None when it tells none."""
    if len(data) < BOOTLOADER_DESC.size or data[0] != BOOTLOADER_DESC_MAGIC:
        return None
    return _text(BOOTLOADER_DESC.unpack_from(data)[2])


def build_image(
    target: str,
    segments: Sequence[tuple[int, bytes]],
    *,
    entry: int = 0,
    revisions: tuple[int, int] = (0, REVISION_ANY),
    flash: tuple[int, int] = FLASH_DIO_80M,
    digest: bool = True,
) -> bytes:
    """Assemble an image with its checksum.

    Args:
        target: ESP-IDF target name.
        segments: Load address and bytes of each; those mapped from flash come first.
        entry: Address of the first instruction.
        revisions: Lowest and highest chip revision, major * 100 + minor.
        flash: Bytes 2 and 3 of the header: SPI mode, size and frequency.
        digest: Append a SHA-256.

    Returns:
        The bytes to flash.
    """
    image = CHIP_DEFS[target].BOOTLOADER_IMAGE(append_digest=digest)
    image.entrypoint = entry
    image.min_rev_full, image.max_rev_full = revisions
    image.min_rev = image.min_rev_full // 100
    image.flash_mode, image.flash_size_freq = flash
    image.segments = [ELFSection(b"", address, data, 0) for address, data in segments]
    return bytes(image.save(None))


def read_header(target: str, data: bytes) -> tuple[Any, int]:
    """Read the header alone.

    Args:
        target: ESP-IDF target name; the image may turn out to be for another.
        data: At least ``HEADER_BYTES``, the first of them ``MAGIC``.

    Returns:
        esptool's image object without segments, and how many there should be.

    Raises:
        RuntimeError: The flag that announces the digest is neither 0 nor 1.
    """
    stream, image = io.BytesIO(data), CHIP_DEFS[target].BOOTLOADER_IMAGE()
    count = int(image.load_common_header(stream, MAGIC))
    image.load_extended_header(stream)
    return image, count


def read_image(target: str, data: bytes) -> Any:
    """Read an image whose lengths are known to be right; checksum and digest may be wrong.

    Returns:
        esptool's image object. ``calculate_checksum()`` should equal ``checksum``, and with
        ``append_digest`` ``calc_digest`` should equal ``stored_digest``.
    """
    return CHIP_DEFS[target].BOOTLOADER_IMAGE(io.BytesIO(data))


def _text(field: bytes) -> str:
    return field.split(b"\x00")[0].decode("utf-8", "replace")
