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
    """

    name: str
    title: str
    rounding: Rounding
    packed_filters: bool
    chip_id: int
    bootloader_offset: int
    revision: int

    @property
    def simd(self) -> bool:
        """Whether ESP-DL's vector kernels run, which read packed filters, and not its C ones."""
        return self.packed_filters


ESPDL_VERSIONS = ("3.3.9",)  # whose kernels the interpreter computes, see docs/operators.md
PARTITION_TABLE_OFFSET = 0x8000  # ESP-IDF CONFIG_PARTITION_TABLE_OFFSET default

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("esp32s3", "ESP32-S3", Rounding.HALF_UP, True, 9, 0x0, 2),
        Target("esp32p4", "ESP32-P4", Rounding.HALF_EVEN, True, 18, 0x2000, 301),
        Target("c", "", Rounding.HALF_UP, False, -1, 0x0, 0),
    )
}
DEVKIT_TARGETS = ("esp32s3", "esp32p4")  # targets that exist as a board


def arithmetic_finding(espdl_version: str) -> str:
    """What to say of every result of a device; empty when its kernels are known.

    Args:
        espdl_version: As the device reports it; empty if it does not.
    """
    if espdl_version in ESPDL_VERSIONS:
        return ""
    said = f"ESP-DL {espdl_version}" if espdl_version else "no version of ESP-DL"
    return (
        f"arithmetic unknown: the device reports {said}, this release knows the kernels of "
        f"{', '.join(ESPDL_VERSIONS)}; a difference may be the version's, and equal results prove "
        "no more than that these inputs agree"
    )
