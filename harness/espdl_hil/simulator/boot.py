"""Boot from flash: what ROM and second-stage bootloader check, and what they print.

Lines are those of a chip, except the time stamps: a simulated devkit measures
no chip time, so they are all zero.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espdl_hil.formats.esp_image import (
    DIGEST_BYTES,
    HEADER_BYTES,
    MAGIC,
    MAX_SEGMENTS,
    REVISION_ANY,
    SEGMENT,
    AppDescription,
    read_header,
    read_image,
    unpack_bootloader_version,
)
from espdl_hil.formats.partition_table import (
    APP,
    DATA,
    FACTORY,
    TABLE_BYTES,
    Partition,
    PartitionTableError,
    read_table,
)
from espdl_hil.simulator.chips import Chip, ResetReason
from espdl_hil.targets import PARTITION_TABLE_OFFSET

if TYPE_CHECKING:
    from espdl_hil.simulator.flash import NorFlash

MODELS_LABEL = "models"
ROM_HEADER_ATTEMPTS = 8  # how often the ROM tells of a bad header before its watchdog bites
MAX_SEGMENT_BYTES = 0x1000000
HASH_FAILED = "Image hash failed - image is corrupt"
MAPPED_BELOW = 0x10000000  # segments loaded below this address are padding
_FLASH_SIZES = {0: "1MB", 1: "2MB", 2: "4MB", 3: "8MB", 4: "16MB", 5: "32MB", 6: "64MB", 7: "128MB"}
_USAGES = {
    (0, 0x00): "factory app",
    (0, 0x20): "test app",
    (1, 0x00): "OTA data",
    (1, 0x01): "RF data",
    (1, 0x02): "WiFi data",
    (1, 0x04): "NVS keys",
    (1, 0x05): "efuse",
}


@dataclass(frozen=True)
class App:
    """An application that the bootloader has accepted.

    Attributes:
        description: What it says about itself.
        models: The ``models`` partition; None when the table has none.
    """

    description: AppDescription
    models: Partition | None


@dataclass(frozen=True)
class Boot:
    """How a start from flash ended.

    Attributes:
        console: Everything printed, CRLF line ends.
        app: The application to run; None when there is none.
        retry: The reset that follows a failure.
    """

    console: str
    app: App | None
    retry: ResetReason


class _RefusalError(Exception):
    """An image is not accepted, in the words of a component of the bootloader."""

    def __init__(self, message: str, tag: str = "esp_image") -> None:
        super().__init__(message)
        self.tag = tag


class _StageError(Exception):
    """A stage gave up; the message is on the console already."""


def boot(flash: NorFlash, chip: Chip, revision: int, reason: ResetReason) -> Boot:
    """Start from flash.

    Args:
        flash: The flash as it is.
        chip: The chip.
        revision: Chip revision, major * 100 + minor.
        reason: Why it starts.

    Returns:
        The console text, and the application or the reset that follows.
    """
    run = _Run(flash, chip, revision)
    run.lines(*chip.rom, f"{chip.resets[reason]},{chip.flash_boot}")
    app, retry = None, ResetReason.WATCHDOG
    with contextlib.suppress(_StageError):
        bootloader = run.rom_stage()
        retry = ResetReason.SOFTWARE
        app = run.bootloader_stage(bootloader)
    return Boot("".join(run.console), app, retry)


def download_banner(chip: Chip, reason: ResetReason) -> str:
    """What the ROM prints when it enters its download mode."""
    lines = (*chip.rom, f"{chip.resets[reason]},{chip.download_boot}", "waiting for download")
    return "".join(f"{line}\r\n" for line in lines)


class _Run:
    def __init__(self, flash: NorFlash, chip: Chip, revision: int) -> None:
        self.flash = flash
        self.chip = chip
        self.revision = revision
        self.console: list[str] = []

    def lines(self, *lines: str) -> None:
        self.console.extend(f"{line}\r\n" for line in lines)

    def log(self, level: str, tag: str, message: str) -> None:
        self.lines(f"{level} (0) {tag}: {message}")

    def rom_stage(self) -> Any:
        offset = self.chip.target.bootloader_offset
        head = self.flash.read(offset, HEADER_BYTES)
        if head[0] != MAGIC or not 0 < head[1] <= MAX_SEGMENTS:
            word = int.from_bytes(head[:4], "little")
            self.lines(*[f"invalid header: 0x{word:08x}"] * ROM_HEADER_ATTEMPTS)
            raise _StageError
        self.lines(*self.chip.spi_mode)
        try:
            image = self._read_image(offset, PARTITION_TABLE_OFFSET - offset)
        except _RefusalError:
            image = None
        for segment in image.segments if image else ():
            self.lines(f"load:0x{segment.addr:08x},len:0x{len(segment.data):x}")
        if image is None or image.chip_id != self.chip.target.chip_id:
            self.lines("ets_loader.c 78 ")  # segments that are not in this chip's memory
            raise _StageError
        calculated = image.calculate_checksum()
        if calculated != image.checksum:
            self.lines(
                f"Checksum failure. Calculated 0x{calculated:02x} stored 0x{image.checksum:02x}",
                "ets_main.c 329 ",
            )
            raise _StageError
        if _is_hash_wrong(image):
            self.lines(
                "SHA-256 comparison failed:",
                f"Calculated: {image.calc_digest.hex()}",
                f"Expected: {image.stored_digest.hex()}",
                "Attempting to boot anyway...",
            )
        self.lines(f"entry 0x{image.entrypoint:08x}")
        return image

    def bootloader_stage(self, image: Any) -> App:
        version = unpack_bootloader_version(image.segments[0].data) or "(unknown)"
        self.log("I", "boot", f"ESP-IDF {version} 2nd stage bootloader")
        self.log("I", "boot", "Multicore bootloader")
        self.log("I", "boot", f"chip revision: {_revision(self.revision)}")
        try:
            self._check_chip(image, highest=REVISION_ANY)
        except _RefusalError as refusal:
            self.log("E", refusal.tag, str(refusal))
            raise _StageError from None
        tag = f"boot.{self.chip.name}"
        size = _FLASH_SIZES.get(image.flash_size_freq >> 4, "2MB")
        speed = "Boot SPI Speed :" if self.chip.name == "esp32s3" else "SPI Speed      :"
        self.log("I", tag, f"{speed} 80MHz")
        self.log("I", tag, "SPI Mode       : DIO")
        self.log("I", tag, f"SPI Flash Size : {size}")
        self.log("I", "boot", "Enabling RNG early entropy source...")
        partitions = self._partition_table()
        for factory in [p for p in partitions if (p.type, p.subtype) == (APP, FACTORY)][-1:]:
            try:
                description = self._load_app(factory)
            except _RefusalError as refusal:
                self.log("E", refusal.tag, str(refusal))
                self.log("E", "boot", "Factory app partition is not bootable")
            else:
                self.log("I", "boot", f"Loaded app from partition at offset 0x{factory.offset:x}")
                self.log("I", "boot", "Disabling RNG early entropy source...")
                models = [p for p in partitions if (p.type, p.label) == (DATA, MODELS_LABEL)]
                return App(description, models[0] if models else None)
        self.log("E", "boot", "No bootable app partitions in the partition table")
        raise _StageError

    def _partition_table(self) -> tuple[Partition, ...]:
        table = self.flash.read(PARTITION_TABLE_OFFSET, TABLE_BYTES)
        try:
            partitions = read_table(table, flash_bytes=self.flash.size)
        except PartitionTableError as error:
            self.log("E", "flash_parts", error.words)
            self.log("E", "boot", "Failed to verify partition table")
            self.log("E", "boot", "load partition table error!")
            raise _StageError from None
        self.log("I", "boot", "Partition Table:")
        self.log("I", "boot", "## Label            Usage          Type ST Offset   Length")
        for index, entry in enumerate(partitions):
            self.log(
                "I",
                "boot",
                f"{index:2d} {entry.label:<16} {_usage(entry):<16} {entry.type:02x} "
                f"{entry.subtype:02x} {entry.offset:08x} {entry.size:08x}",
            )
        self.log("I", "boot", "End of partition table")
        return partitions

    def _load_app(self, partition: Partition) -> AppDescription:
        where = f"image at 0x{partition.offset:x}"
        head = self.flash.read(partition.offset, HEADER_BYTES)
        if head[0] != MAGIC:
            raise _RefusalError(f"{where} has invalid magic byte (nothing flashed here?)")
        header, count = self._read_header(partition.offset)
        self._check_chip(header, highest=header.max_rev_full)
        if count > MAX_SEGMENTS:
            raise _RefusalError(f"{where} segment count {count} exceeds max {MAX_SEGMENTS}")
        image = self._read_image(partition.offset, partition.size)
        for index, segment in enumerate(image.segments):
            self.log(
                "I",
                "esp_image",
                f"segment {index}: "
                f"paddr={partition.offset + segment.file_offs + SEGMENT.size:08x} "
                f"vaddr={segment.addr:08x} size={len(segment.data):05x}h "
                f"({len(segment.data):6d}) {self._use(segment.addr)}",
            )
        calculated = image.calculate_checksum()
        if calculated != image.checksum:
            raise _RefusalError(
                f"Checksum failed. Calculated 0x{calculated:x} read 0x{image.checksum:x}",
            )
        if _is_hash_wrong(image):
            raise _RefusalError(HASH_FAILED)
        first = image.segments[0].data if image.segments else b""
        description = AppDescription.unpack(first)
        if description is None:
            raise _RefusalError("Failed to fetch app description header!")
        return description

    def _check_chip(self, image: Any, *, highest: int) -> None:
        expected, found = self.chip.target.chip_id, _revision(self.revision)
        low = image.min_rev_full
        if image.chip_id != expected:
            message = f"mismatch chip ID, expected {expected}, found {image.chip_id}"
        elif self.revision < low:
            message = f"chip revision check failed. Required >= {_revision(low)}, found {found}."
        elif highest not in (0, REVISION_ANY) and self.revision > highest:
            required = _revision(highest)
            message = f"chip revision check failed. Required <= {required}, found {found}."
        else:
            return
        raise _RefusalError(message, "boot_comm")

    def _use(self, address: int) -> str:
        if address < MAPPED_BELOW:
            return ""
        return "map" if any(address in mapped for mapped in self.chip.mapped) else "load"

    def _read_header(self, offset: int) -> tuple[Any, int]:
        try:
            return read_header(self.chip.name, self.flash.read(offset, HEADER_BYTES))
        except RuntimeError:  # the flag of the digest, which the digest covers
            raise _RefusalError(HASH_FAILED) from None

    def _read_image(self, offset: int, limit: int) -> Any:
        """Read an image that starts at *offset* and may take *limit* bytes."""
        header, count = self._read_header(offset)
        size = HEADER_BYTES
        for _ in range(count):
            prefix = self.flash.read(offset + size, SEGMENT.size).ljust(SEGMENT.size, b"\xff")
            _address, length = SEGMENT.unpack(prefix)
            if length % 4 or length >= MAX_SEGMENT_BYTES:
                raise _RefusalError(f"invalid segment length 0x{length:x}")
            size += SEGMENT.size + length
        size += 16 - size % 16  # the checksum is the last byte of the padding
        size += DIGEST_BYTES if header.append_digest else 0
        if size > limit:
            raise _RefusalError(f"Image length {size} doesn't fit in partition length {limit}")
        return read_image(self.chip.name, self.flash.read(offset, size))


def _is_hash_wrong(image: Any) -> bool:
    return bool(image.append_digest and image.stored_digest != image.calc_digest)


def _usage(partition: Partition) -> str:
    if partition.type == APP and 0x10 <= partition.subtype < 0x20:
        return "OTA app"
    unknown = {APP: "Unknown app", DATA: "Unknown data"}.get(partition.type, "unknown")
    return _USAGES.get((partition.type, partition.subtype), unknown)


def _revision(revision: int) -> str:
    return f"v{revision // 100}.{revision % 100}"
