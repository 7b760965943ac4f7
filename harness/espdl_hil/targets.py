"""Facts per chip. Knows numbers, imports nothing of the harness."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Rounding(Enum):
    """What an exact half becomes when an accumulator is shifted right."""

    HALF_EVEN = "half_even"  # P4 vector unit and rintf
    HALF_UP = "half_up"  # S3 and the portable C kernels: floor(x + 0.5)


@dataclass(frozen=True)
class Target:
    """One ESP-DL target.

    Attributes:
        name: ESP-IDF target name, or ``c`` for ESP-DL's portable kernels.
        title: The name that esptool prints; empty for ``c``.
        rounding: Rounding of every requantization on this target.
        packed_filters: Filters are stored in SIMD blocks (see ``espdl/weights.py``).
        chip_id: ``chip_id`` of the ESP image header; -1 for ``c``.
        bootloader_offset: Flash offset of the second-stage bootloader, bytes.
        revision: Chip revision of the simulated devkit, major * 100 + minor.
        model_bytes: The largest memory for a model on any module with this chip: PSRAM, or flash
            where there is none.
        vector_modes: Whether the vector unit has modes that other code can leave behind.
    """

    name: str
    title: str
    rounding: Rounding
    packed_filters: bool
    chip_id: int
    bootloader_offset: int
    revision: int
    model_bytes: int
    vector_modes: bool = False

    @property
    def simd(self) -> bool:
        """Whether ESP-DL's vector kernels run, which read packed filters, and not its C ones."""
        return self.packed_filters

    @property
    def exporter(self) -> str:
        """The exporter's target of files for this chip: those that run the C kernels share one."""
        return self.name if self.packed_filters else "c"


PARTITION_TABLE_OFFSET = 0x8000  # ESP-IDF CONFIG_PARTITION_TABLE_OFFSET default

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("esp32s3", "ESP32-S3", Rounding.HALF_UP, True, 9, 0x0, 2, 16 << 20),
        Target("esp32p4", "ESP32-P4", Rounding.HALF_EVEN, True, 18, 0x2000, 301, 32 << 20, True),
        Target("esp32", "ESP32", Rounding.HALF_UP, False, 0, 0x1000, 300, 8 << 20),
        Target("esp32c3", "ESP32-C3", Rounding.HALF_UP, False, 5, 0x0, 3, 16 << 20),
        Target("c", "", Rounding.HALF_UP, False, -1, 0x0, 0, 32 << 20),
    )
}
KNOWN_ESPDL_VERSIONS = ("3.3.9",)  # whose kernels are computed here; docs/evidence
DEVKIT_TARGETS = ("esp32s3", "esp32p4")  # tested by default; there is a simulated devkit of each
CHIP_TARGETS = tuple(name for name, target in TARGETS.items() if target.title)  # there are boards
