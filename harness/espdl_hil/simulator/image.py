"""Builds what `idf.py build` would leave for the simulated devkit: a build directory.

The images carry no machine code. The application image names the firmware core
that the simulated devkit compiles: its description holds the SHA-256 of the
``.elf`` file, which here is a list of the core's source files and their hashes.
So a changed firmware changes the application's hash, as it does on a chip.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import ConfigError
from espdl_hil.formats.esp_image import (
    APP_DESC_OFFSET,
    AppDescription,
    build_image,
    pack_bootloader_description,
)
from espdl_hil.formats.partition_table import APP, FACTORY, Partition, build_table, parse_csv
from espdl_hil.simulator.chips import Chip, chip_for
from espdl_hil.simulator.sources import core_manifest, firmware_dir
from espdl_hil.targets import PARTITION_TABLE_OFFSET

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = "espdl_hil_sim"
IDF_VERSION = "none (simulated)"
FLASH_SIZE = "16MB"
DIO_16MB_80M = (2, 0x4F)  # image header bytes 2 and 3


def app_manifest(target: str) -> bytes:
    """Return what stands in the place of the ELF file; its SHA-256 is the app's hash.

    Raises:
        ConfigError: The firmware's sources cannot be found.
    """
    return f"{PROJECT} for {target}: not an ELF file\n".encode() + core_manifest().encode()


def app_sha256(target: str) -> bytes:
    """Return the hash that an image built now reports, 32 bytes."""
    return hashlib.sha256(app_manifest(target)).digest()


def build_app(target: str, out: Path) -> Path:
    """Write a build directory that esptool and pytest-embedded-idf accept.

    Args:
        target: ``esp32s3`` or ``esp32p4``.
        out: The directory; created when missing, files in it are replaced.

    Returns:
        *out*. The same firmware sources give the same bytes.

    Raises:
        ConfigError: No simulated devkit of *target*, no firmware sources, or a
            partition table without a ``factory`` application.
    """
    chip = chip_for(target)
    table = (firmware_dir() / "partitions.csv").read_text(encoding="utf-8")
    partitions = parse_csv(table, table_offset=PARTITION_TABLE_OFFSET)
    factories = [p for p in partitions if (p.type, p.subtype) == (APP, FACTORY)]
    if not factories:
        raise ConfigError("firmware/partitions.csv has no factory app partition")
    manifest = app_manifest(target)
    files: dict[str, bytes] = {
        "bootloader/bootloader.bin": _image(
            chip, [(chip.code_base, pack_bootloader_description(IDF_VERSION))]
        ),
        "partition_table/partition-table.bin": build_table(partitions),
        f"{PROJECT}.bin": _application(chip, manifest),
        f"{PROJECT}.elf": manifest,
        "flasher_args.json": _json(_flasher_args(chip, factories[0])),
        "project_description.json": _json(_project_description(chip, out)),
        "config/sdkconfig.json": _json(_sdkconfig(chip)),
        "sdkconfig": _sdkconfig_text(_sdkconfig(chip)),
    }
    for name, data in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return out


def _image(chip: Chip, segments: list[tuple[int, bytes]]) -> bytes:
    major = chip.target.revision // 100 * 100
    return build_image(
        chip.name,
        segments,
        entry=chip.code_base,
        revisions=(major, major + 99),  # another major needs another build
        flash=DIO_16MB_80M,
    )


def _application(chip: Chip, manifest: bytes) -> bytes:
    description = AppDescription(
        version=hashlib.sha256(manifest).hexdigest()[:12],
        project=PROJECT,
        elf_sha256=hashlib.sha256(manifest).digest(),
        idf_version=IDF_VERSION,
    )
    # An image without loaded code looks broken to tools.
    return _image(
        chip,
        [
            (chip.mapped[0].start + APP_DESC_OFFSET, description.pack() + manifest),
            (chip.code_base, bytes(16)),
        ],
    )


def _flasher_args(chip: Chip, factory: Partition) -> dict[str, Any]:
    entries = {
        "bootloader": (chip.target.bootloader_offset, "bootloader/bootloader.bin"),
        "partition-table": (PARTITION_TABLE_OFFSET, "partition_table/partition-table.bin"),
        "app": (factory.offset, f"{PROJECT}.bin"),
    }
    settings = {"flash_mode": "dio", "flash_size": FLASH_SIZE, "flash_freq": "80m"}
    return {
        "write_flash_args": [
            argument
            for key, value in settings.items()
            for argument in ("--" + key.replace("_", "-"), value)
        ],
        "flash_settings": settings,
        "flash_files": {hex(offset): file for offset, file in entries.values()},
        **{
            name: {"offset": hex(offset), "file": file, "encrypted": "false"}
            for name, (offset, file) in entries.items()
        },
        "extra_esptool_args": {
            "after": "hard-reset",
            "before": "default-reset",
            "stub": True,
            "chip": chip.name,
        },
    }


def _project_description(chip: Chip, out: Path) -> dict[str, Any]:
    return {
        "version": "1.3",
        "project_name": PROJECT,
        "project_version": app_sha256(chip.name).hex()[:12],
        "build_dir": str(out),
        "config_file": str(out / "sdkconfig"),
        "app_elf": f"{PROJECT}.elf",
        "app_bin": f"{PROJECT}.bin",
        "git_revision": IDF_VERSION,
        "target": chip.name,
        "build_components": ["main", "hil_serve", "runner", "wire", "espdl_stream"],
        "monitor_baud": "115200",
    }


def _sdkconfig(chip: Chip) -> dict[str, Any]:
    return {
        "IDF_TARGET": chip.name,
        f"IDF_TARGET_ARCH_{'RISCV' if chip.name == 'esp32p4' else 'XTENSA'}": True,
        "IDF_FIRMWARE_CHIP_ID": chip.target.chip_id,
        "BOOTLOADER_OFFSET_IN_FLASH": chip.target.bootloader_offset,
        "PARTITION_TABLE_OFFSET": PARTITION_TABLE_OFFSET,
        "ESPTOOLPY_FLASHMODE": "dio",
        "ESPTOOLPY_FLASHSIZE": FLASH_SIZE,
        "ESPTOOLPY_FLASHFREQ": "80m",
        "ESP_CONSOLE_UART_BAUDRATE": 115200,
    }


def _sdkconfig_text(values: dict[str, Any]) -> bytes:
    def line(key: str, value: object) -> str:
        text = "y" if value is True else f'"{value}"' if isinstance(value, str) else str(value)
        return f"CONFIG_{key}={text}\n"

    return "".join(line(key, value) for key, value in values.items()).encode()


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=4) + "\n").encode()
