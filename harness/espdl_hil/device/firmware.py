"""A finished build of the firmware: what goes where in flash, and which app it is."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.formats.partition_table import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_embedded_idf.app import IdfApp

    from espdl_hil.formats.partition_table import Partition

MODELS_PARTITION: Final = "models"
SERVE: Final = "hil_serve"  # the component that answers, firmware/components
DEFAULT_BAUD: Final = 115200


@dataclass(frozen=True)
class Firmware:
    """One build directory, read and checked.

    Attributes:
        build_dir: The directory.
        target: ESP-IDF target it was built for.
        app: pytest-embedded's view of it.
        app_sha256: SHA-256 of the ELF file that the app reports, hex.
        app_bytes: Size of the app's image.
        models: The partition that takes the models package; None: all are uploaded to RAM.
        baud: Baud rate of its console.
    """

    build_dir: Path
    target: str
    app: IdfApp
    app_sha256: str
    app_bytes: int
    models: Partition | None
    baud: int

    @classmethod
    def read(cls, build_dir: Path, target: str) -> Firmware:
        """Read a build directory.

        Args:
            build_dir: What ``idf.py build`` left, or what stands in for it.
            target: The target that it must be for.

        Raises:
            ConfigError: There is no build, it is for another target, or it cannot answer.
            ArtifactError: A file of it is damaged.
        """
        arguments = _read_flasher_args(build_dir)
        app = _parse(build_dir)
        if app.target != target:
            raise ConfigError(
                f"{build_dir} was built for {app.target}, the device is an {target}",
                hint=f"idf.py set-target {target} && idf.py build, or name another --hil-app",
            )
        _require_serve(build_dir, app)
        image = _file(build_dir, arguments, "app")
        table_file = _file(build_dir, arguments, "partition-table", "partition_table")
        table = read_table(table_file.read_bytes(), path=str(table_file))
        return cls(
            build_dir=build_dir,
            target=target,
            app=app,
            app_sha256=_elf_sha256(image),
            app_bytes=image.stat().st_size,
            models=next((found for found in table if found.label == MODELS_PARTITION), None),
            baud=int(app.sdkconfig.get("ESP_CONSOLE_UART_BAUDRATE") or DEFAULT_BAUD),
        )

    def require_fit(self, models: bytes) -> None:
        """Refuse a models package that its partition cannot take.

        Raises:
            ConfigError: It is too large, or there is no such partition.
        """
        if self.models is None:
            raise ConfigError(
                f"{self.build_dir} has no partition {MODELS_PARTITION!r} for a models package",
                hint=f"add `{MODELS_PARTITION}, data, 0x40, , 1M` to the app's partitions.csv",
            )
        if len(models) > self.models.size:
            raise ConfigError(
                f"the models package has {len(models)} bytes, the partition "
                f"{self.models.label!r} {self.models.size}",
                hint="test fewer models at once, or enlarge the partition",
            )


def _require_serve(build_dir: Path, app: IdfApp) -> None:
    """Refuse an app that will not answer, as far as its build says so.

    Raises:
        ConfigError: the component is not in it, or is switched off.
    """
    try:
        description = json.loads((build_dir / "project_description.json").read_text("utf-8"))
        components = description.get("build_components")
    except (OSError, ValueError, AttributeError):
        components = None
    if isinstance(components, list) and SERVE not in components:
        raise ConfigError(
            f"the app in {build_dir} cannot answer the harness: the component {SERVE} is not in it",
            hint="add it to your app's REQUIRES and call hil::Serve(): `espdl-hil docs firmware`",
        )
    if app.sdkconfig.get("HIL_SERVE") is False:
        raise ConfigError(
            f"the app in {build_dir} was built with CONFIG_HIL_SERVE=n, so it does not answer",
            hint="set CONFIG_HIL_SERVE=y for the build that is to be proven",
        )


def _read_flasher_args(build_dir: Path) -> dict[str, Any]:
    path = build_dir / "flasher_args.json"
    hint = "build it with idf.py build, and name the build folder or the project with --hil-app"
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{build_dir} is no finished ESP-IDF build: {path.name} cannot be read "
            f"({error.strerror})",
            hint=hint,
        ) from None
    except ValueError as error:
        raise ArtifactError(f"not JSON: {error}", path=str(path), hint=hint) from None
    if not isinstance(arguments, dict):
        raise ArtifactError("not a JSON object", path=str(path), hint=hint)
    return arguments


def _parse(build_dir: Path) -> IdfApp:
    from pytest_embedded_idf.app import IdfApp

    class App(IdfApp):
        """``IdfApp`` that closes the file it reads, which warnings as errors insist on."""

        _sdkconfig: dict[str, Any] | None

        @property
        def sdkconfig(self) -> dict[str, Any]:
            file = build_dir / "config" / "sdkconfig.json"
            if self._sdkconfig is None and file.is_file():
                self._sdkconfig = json.loads(file.read_text(encoding="utf-8"))
            return self._sdkconfig or {}

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns on the root logger about files that are optional
    try:
        return App(app_path=str(build_dir), build_dir=str(build_dir.resolve()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"pytest-embedded cannot read the build ({type(error).__name__}: {error})",
            path=str(build_dir),
            hint="build the firmware again",
        ) from error
    finally:
        logging.disable(before)


def _file(build_dir: Path, arguments: dict[str, Any], *names: str) -> Path:
    for name in names:
        entry = arguments.get(name)
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            path = build_dir / str(entry["file"])
            if path.is_file():
                return path
            raise ArtifactError(f"{entry['file']} is missing", path=str(build_dir))
    raise ArtifactError(f"flasher_args.json names no {names[0]}", path=str(build_dir))


def _elf_sha256(image: Path) -> str:
    from espdl_hil.formats import esp_image  # esptool takes its time to import

    data = image.read_bytes()[esp_image.APP_DESC_OFFSET :]
    description = esp_image.AppDescription.unpack(data)
    if description is None:
        raise ArtifactError(
            f"app description starts with 0x{int.from_bytes(data[:4], 'little'):08x}, "
            f"expected 0x{esp_image.APP_DESC_MAGIC:08x}",
            path=str(image),
            offset=esp_image.APP_DESC_OFFSET,
        )
    return description.elf_sha256.hex()
