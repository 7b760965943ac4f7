"""The ESP image format: header, segments, checksum, digest. Bytes in and bytes out."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace

import numpy as np

MAGIC = 0xE9
HEADER = struct.Struct("<BBBBIB3sHBHH4sB")
SEGMENT = struct.Struct("<II")  # load address, bytes
MAX_SEGMENTS = 16
CHECKSUM_SEED = 0xEF
DIGEST_BYTES = 32
WP_PIN_DISABLED = 0xEE
REVISION_ANY = 0xFFFF

MODE_DIO = 2
FREQUENCY_80M = 0xF

APP_DESC_MAGIC = 0xABCD5432
APP_DESC = struct.Struct("<II8x32s32s16s16s32s32sHHBB2x72x")
BOOTLOADER_DESC_MAGIC = 0x50
BOOTLOADER_DESC = struct.Struct("<B3xI32s24s16x")


@dataclass(frozen=True)
class Header:
    """The 24 bytes at the start of an image.

    Attributes:
        segments: Number of segments.
        entry: Address of the first instruction.
        chip_id: Chip that the image is for.
        min_revision: Lowest chip revision, major * 100 + minor.
        max_revision: Highest chip revision; ``REVISION_ANY`` when there is no limit.
        digest: A SHA-256 follows the image.
        flash: Bytes 2 and 3: SPI mode, size and frequency.
        magic: ``MAGIC``, or whatever flash holds.
    """

    segments: int
    entry: int
    chip_id: int
    min_revision: int = 0
    max_revision: int = REVISION_ANY
    digest: bool = True
    flash: tuple[int, int] = (MODE_DIO, FREQUENCY_80M)
    magic: int = MAGIC

    def pack(self) -> bytes:
        """Encode."""
        return HEADER.pack(
            self.magic,
            self.segments,
            *self.flash,
            self.entry,
            WP_PIN_DISABLED,
            bytes(3),
            self.chip_id,
            self.min_revision // 100,
            self.min_revision,
            self.max_revision,
            bytes(4),
            self.digest,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """Decode; any 24 bytes give a header, its fields are the caller's to judge."""
        (
            magic,
            segments,
            mode,
            size_freq,
            entry,
            _wp,
            _drive,
            chip_id,
            _old,
            low,
            high,
            _pad,
            sha,
        ) = HEADER.unpack(data)
        return cls(segments, entry, chip_id, low, high, bool(sha), (mode, size_freq), magic)


@dataclass(frozen=True)
class Segment:
    """A piece of an image.

    Attributes:
        address: Where it is loaded or mapped.
        data: Its bytes, a multiple of 4.
    """

    address: int
    data: bytes


@dataclass(frozen=True)
class AppDescription:
    """What an application says about itself (``esp_app_desc_t``).

    Attributes:
        version: Version text.
        project: Project name.
        elf_sha256: SHA-256 of the ELF file, 32 bytes.
        idf_version: Version of ESP-IDF.
        date: Build date.
        time: Build time.
    """

    version: str
    project: str
    elf_sha256: bytes
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
        """Decode; None when the magic word is missing."""
        magic, _secure, version, project, time, date, idf, sha, *_ = APP_DESC.unpack(
            data[: APP_DESC.size]
        )
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
    return _text(BOOTLOADER_DESC.unpack(data[: BOOTLOADER_DESC.size])[2])


def checksum(segments: list[bytes]) -> int:
    """XOR of all bytes of all segments, seeded."""
    value = CHECKSUM_SEED
    for data in segments:
        value ^= int(np.bitwise_xor.reduce(np.frombuffer(data, np.uint8)))
    return value


def build_image(header: Header, segments: list[Segment]) -> bytes:
    """Assemble an image with checksum and SHA-256.

    Args:
        header: Header; its segment count is set here.
        segments: In file order.

    Returns:
        The bytes to flash.
    """
    image = bytearray(replace(header, segments=len(segments)).pack())
    for segment in segments:
        image += SEGMENT.pack(segment.address, len(segment.data)) + segment.data
    image += bytes(15 - len(image) % 16)
    image.append(checksum([segment.data for segment in segments]))
    if header.digest:
        image += hashlib.sha256(image).digest()
    return bytes(image)


def _text(field: bytes) -> str:
    return field.split(b"\x00")[0].decode("utf-8", "replace")
