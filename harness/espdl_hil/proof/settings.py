"""What a user chooses: devices, ports and folders. Knows values, not command lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

SIM, SERIAL = "sim", "serial"
DEVICE_KINDS = (SERIAL, SIM)


@dataclass(frozen=True)
class Settings:
    """How cases are run.

    Attributes:
        device: ``serial`` (an attached board) or ``sim`` (a simulated devkit).
        targets: Targets to test, each once.
        ports: Target to port URL; one that is missing is looked for (``serial``) or started
            (``sim``).
        baud: Baud rate of the session; None means the harness's default.
        model_paths: Model files and folders, in the order given.
        report: Folder of the report.
        store: Folder of the artifact store; None means the user's cache.
        jobs: Quantize workers at once; None means one a processor.
        build_dir: Finished ESP-IDF build to flash; ``{target}`` in it is replaced.
        log_suffix: Tells the device logs of several processes apart.
    """

    device: str = SIM
    targets: tuple[str, ...] = DEVKIT_TARGETS
    ports: Mapping[str, str] = field(default_factory=dict)
    baud: int | None = None
    model_paths: tuple[Path, ...] = ()
    report: Path = Path("hil-report")
    store: Path | None = None
    jobs: int | None = None
    build_dir: str | None = None
    log_suffix: str = ""

    def __post_init__(self) -> None:
        if self.device not in DEVICE_KINDS:
            known = ", ".join(DEVICE_KINDS)
            raise ConfigError(f"device {self.device!r}: expected one of {known}")
