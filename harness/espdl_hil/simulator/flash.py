"""NOR flash: erased to ones by the sector, programmed only towards zeros."""

from __future__ import annotations

import hashlib
import mmap
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SECTOR_BYTES = 4096  # smallest erasable unit, esptool FLASH_SECTOR_SIZE
MIN_FLASH_BYTES, MAX_FLASH_BYTES = 1 << 20, 1 << 27  # sizes that a JEDEC id byte can name
ERASED = 0xFF


class NorFlash:
    """The flash chip of one devkit.

    Args:
        size: Bytes; a power of two from 1 MiB to 128 MiB.
        file: Where the contents live beyond this object; created erased when
            missing. None keeps them in memory.

    Raises:
        ConfigError: *size* is impossible, or *file* has another size or cannot be opened.
    """

    def __init__(self, size: int, file: Path | None = None) -> None:
        if not MIN_FLASH_BYTES <= size <= MAX_FLASH_BYTES or size & (size - 1):
            raise ConfigError(
                f"flash_bytes is {size}; expected a power of two from 1 MiB to 128 MiB",
                hint="16 * 1024 * 1024 is what the devkits carry",
            )
        self.size = size
        self._map = mmap.mmap(-1, size) if file is None else _map_file(file, size)
        if file is None:
            self.erase(0, size)

    @property
    def jedec_id(self) -> int:
        """What the RDID command returns: manufacturer XMC, type 0x40, log2 of the size."""
        return (self.size.bit_length() - 1) << 16 | 0x4020

    def read(self, offset: int, size: int) -> bytes:
        """Copy bytes out; the part beyond the end is missing."""
        return self._map[offset : offset + size]

    def md5(self, offset: int, size: int) -> bytes:
        """MD5 digest of a range, 16 bytes."""
        with memoryview(self._map) as whole, whole[offset : offset + size] as part:
            return hashlib.md5(part, usedforsecurity=False).digest()

    def erase(self, offset: int, size: int) -> None:
        """Set every sector that the range touches to ones.

        Args:
            offset: First byte of the range.
            size: Bytes; 0 erases nothing. The part beyond the end is ignored.
        """
        if size <= 0:
            return
        first = offset // SECTOR_BYTES * SECTOR_BYTES
        end = min(self.size, -(-(offset + size) // SECTOR_BYTES) * SECTOR_BYTES)
        if first < end:
            self._map[first:end] = bytes((ERASED,)) * (end - first)

    def program(self, offset: int, data: bytes) -> None:
        """Clear the bits that are zero in *data*; the part beyond the end is lost."""
        data = data[: max(0, self.size - offset)]
        old = np.frombuffer(self._map[offset : offset + len(data)], np.uint8)
        self._map[offset : offset + len(data)] = (old & np.frombuffer(data, np.uint8)).tobytes()

    def close(self) -> None:
        """Write everything to the file, if there is one, and let go of the memory."""
        self._map.close()


def _map_file(file: Path, size: int) -> mmap.mmap:
    try:
        if not file.exists():
            file.write_bytes(bytes((ERASED,)) * size)
        if file.stat().st_size != size:
            raise ConfigError(
                f"{file}: flash file has {file.stat().st_size} bytes, the devkit has {size}",
                hint="delete the file, or set flash_bytes to its size",
            )
        with file.open("r+b") as stream:
            return mmap.mmap(stream.fileno(), size)
    except OSError as error:
        raise ConfigError(f"{file}: cannot use it as flash file: {error.strerror}") from None
