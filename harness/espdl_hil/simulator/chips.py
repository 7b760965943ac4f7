"""What a chip's ROM and eFuses say: one class of facts per chip. Knows numbers and names only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from esptool.targets import CHIP_DEFS

from espdl_hil.errors import ConfigError
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS, Target


class ResetReason(Enum):
    """Why the chip starts."""

    POWER_ON = "power on"  # EN reads as power-on, too
    SOFTWARE = "software"
    WATCHDOG = "watchdog"
    PANIC = "panic"  # the panic handler's restart of the CPU


@dataclass(frozen=True)
class Chip:
    """One chip as its ROM presents it.

    Attributes:
        target: The harness's facts about the target.
        rom: Lines that the ROM prints first.
        resets: Reset reason as the ROM prints it.
        flash_boot: Strapping value with IO0 high.
        download_boot: Strapping value with IO0 low, and the mode's name.
        spi_mode: Lines that the ROM prints about the flash before it loads.
        code_base: Internal memory where code is loaded.
        fault: Cause that a crashed load gives in the panic handler.
        program_counter: Its name there.
        cpu_mhz: Clock of the devkit.
        internal_bytes: Internal memory that an application can allocate at most.
        psram_bytes: External memory of the devkit.
    """

    target: Target
    rom: tuple[str, ...]
    resets: dict[ResetReason, str]
    flash_boot: str
    download_boot: str
    spi_mode: tuple[str, ...]
    code_base: int
    fault: str
    program_counter: str
    cpu_mhz: int
    internal_bytes: int
    psram_bytes: int

    @property
    def name(self) -> str:
        """ESP-IDF target name."""
        return self.target.name

    @property
    def mapped(self) -> tuple[range, ...]:
        """Address ranges in which flash appears: data, then code."""
        chip = CHIP_DEFS[self.name]
        return (
            range(chip.DROM_MAP_START, chip.DROM_MAP_END),
            range(chip.IROM_MAP_START, chip.IROM_MAP_END),
        )


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(
            target=TARGETS["esp32s3"],
            rom=("ESP-ROM:esp32s3-20210327", "Build:Mar 27 2021"),
            resets={
                ResetReason.POWER_ON: "rst:0x1 (POWERON)",
                ResetReason.SOFTWARE: "rst:0x3 (RTC_SW_SYS_RST)",
                ResetReason.WATCHDOG: "rst:0x7 (TG0WDT_SYS_RST)",
                ResetReason.PANIC: "rst:0xc (RTC_SW_CPU_RST)",
            },
            flash_boot="boot:0x8 (SPI_FAST_FLASH_BOOT)",
            download_boot="boot:0x0 (DOWNLOAD(USB/UART0))",
            spi_mode=("SPIWP:0xee", "mode:DIO, clock div:1"),
            code_base=0x40374000,
            fault="LoadProhibited",
            program_counter="PC",
            cpu_mhz=240,
            internal_bytes=320 << 10,
            psram_bytes=8 << 20,
        ),
        Chip(
            target=TARGETS["esp32p4"],
            rom=("ESP-ROM:esp32p4-eco5-20250430", "Build:Apr 30 2025"),
            resets={
                ResetReason.POWER_ON: "rst:0x1 (POWERON)",
                ResetReason.SOFTWARE: "rst:0x3 (SW_SYS_RESET)",
                ResetReason.WATCHDOG: "rst:0x7 (HP_SYS_HP_WDT_RESET)",
                ResetReason.PANIC: "rst:0xc (SW_CPU_RESET)",
            },
            flash_boot="boot:0x30f (SPI_FAST_FLASH_BOOT)",
            download_boot="boot:0x307 (DOWNLOAD(USB/UART0/SPI))",
            spi_mode=("SPI mode:DIO, clock div:1",),
            code_base=0x4FF20000,
            fault="Load access fault",
            program_counter="MEPC",
            cpu_mhz=400,
            internal_bytes=512 << 10,
            psram_bytes=32 << 20,
        ),
    )
}


def chip_for(target: str) -> Chip:
    """Look a chip up.

    Raises:
        ConfigError: There is no simulated devkit of *target*.
    """
    if target not in CHIPS:
        raise ConfigError(
            f"there is no simulated devkit for target {target!r}",
            hint=f"targets: {', '.join(DEVKIT_TARGETS)}",
        )
    return CHIPS[target]


def mac_words(chip: Chip, mac: str) -> dict[int, int]:
    """Return the eFuse words that hold a MAC, ``7c:df:a1:00:11:22``.

    Raises:
        ConfigError: *mac* is none.
    """
    try:
        value = int.from_bytes(bytes.fromhex(mac.replace(":", " ")), "big")
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 48 or len(mac) != 17:
        raise ConfigError(f"{mac!r} is no MAC", hint="six bytes, for example 7c:df:a1:00:11:22")
    address = CHIP_DEFS[chip.name].MAC_EFUSE_REG
    return {address: value & 0xFFFFFFFF, address + 4: value >> 32}


def efuse_words(chip: Chip, revision: int) -> dict[int, int]:
    """Return the eFuse words that identify the chip; all others read as zero or as a MAC.

    Args:
        chip: The chip.
        revision: major * 100 + minor.

    Returns:
        Word per register address, laid out as esptool's target class reads it.

    Raises:
        ConfigError: The eFuse fields cannot hold *revision*.
    """
    major, minor = divmod(revision, 100)
    block1 = CHIP_DEFS[chip.name].EFUSE_BLOCK1_ADDR
    if chip.name == "esp32p4" and 0 <= major < 8 and minor < 16:
        return {block1 + 8: (major >> 2) << 23 | (major & 3) << 4 | minor}
    if chip.name == "esp32s3" and 0 <= major < 4 and minor < 16:
        psram_8mb_3v3 = 1 << 7 | 1 << 3
        return {
            block1 + 12: (minor & 7) << 18,
            block1 + 16: psram_8mb_3v3,
            block1 + 20: major << 24 | (minor >> 3) << 23,
        }
    raise ConfigError(
        f"{chip.target.title} cannot have revision {revision}",
        hint=f"major * 100 + minor, for example {chip.target.revision}",
    )
