"""One file that holds a whole flash: what an emulator starts from."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING

from espdl_hil.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.device.firmware import Firmware

ERASED = b"\xff"


def write_image(firmware: Firmware, models: bytes | None, path: Path) -> None:
    """Merge bootloader, partition table, app and models package with esptool.

    Args:
        firmware: The build.
        models: Models package; None leaves the partition erased.
        path: The image; as large as the flash that the build is for, erased between its parts.

    Raises:
        ConfigError: The package does not fit, or the build names no size of its flash.
        ArtifactError: esptool refuses a file of the build.
    """
    import esptool
    from esptool.util import FatalError

    if models is not None:
        firmware.require_fit(models)
    settings = firmware.app.flash_settings
    size = str(settings.get("flash_size", "")).partition("-")[0]
    if not re.fullmatch(r"\d+MB", size):
        raise ConfigError(
            f"{firmware.build_dir} names no size of its flash (flash_size is {size!r})",
            hint="set CONFIG_ESPTOOLPY_FLASHSIZE in the build's sdkconfig",
        )
    parts: list[tuple[int, str | bytes]] = [
        (file.offset, str(file.file_path)) for file in firmware.app.flash_files
    ]
    if firmware.models is not None and models is not None:
        parts.append((firmware.models.offset, models))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            esptool.merge_bin(
                parts,
                firmware.target,
                output=str(path),
                flash_freq=settings.get("flash_freq", "keep"),
                flash_mode=settings.get("flash_mode", "keep"),
                flash_size=size,
                pad_to_size=size,
            )
    except (FatalError, OSError) as error:
        raise ArtifactError(
            f"esptool cannot merge the build: {error}",
            path=str(firmware.build_dir),
            hint="build the firmware again",
        ) from None


def replace_models(firmware: Firmware, models: bytes, path: Path) -> None:
    """Put another models package into an image; its chip must not run.

    Raises:
        ConfigError: The package does not fit.
    """
    firmware.require_fit(models)
    if firmware.models is None:
        raise AssertionError("require_fit has refused it")
    with path.open("r+b") as image:
        image.seek(firmware.models.offset)
        image.write(models.ljust(firmware.models.size, ERASED))
