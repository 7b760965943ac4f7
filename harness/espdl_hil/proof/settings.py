"""What a user chooses: devices, ports and folders. Knows values, not command lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.device.claim import LOCK_WAIT_S
from espdl_hil.device.machine import MACHINES, emulated_targets
from espdl_hil.errors import ConfigError
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.device.bench import BenchBoard

SIM, SERIAL = "sim", "serial"
DEVICE_KINDS = (SERIAL, SIM, *MACHINES)
RAM, FLASH, AUTO = "ram", "flash", "auto"
MODEL_STORES = (RAM, FLASH, AUTO)


@dataclass(frozen=True)
class Settings:
    """How cases are run.

    Attributes:
        device: ``serial`` (an attached board), ``sim`` (a simulated devkit), ``qemu`` or ``espemu``
            (the firmware in that emulator).
        targets: Targets to test, each once.
        ports: Target to port URL; one that is missing is looked for (``serial``) or started
            (any other).
        baud: Baud rate of the console; None means the harness's default.
        max_baud: Highest rate that is agreed on; None means the harness's default.
        model_paths: Model files and folders, in the order given.
        report: Folder of the report.
        store: Folder of the artifact store; None means the user's cache.
        history: File that the run is appended to; None for none.
        summary: File for a summary in Markdown; None for none.
        node_data: Folder for the layers' quality; None for none.
        metrics: File for OpenMetrics text; None for none.
        jobs: Quantize workers at once; None means one a processor.
        app: App to flash instead of this project's firmware: an ESP-IDF project, or a finished
            build; ``{target}`` in it is replaced.
        time_scale: Multiplies the deadlines of the devices; None measures emulators.
        emulator: Path of the emulator; None looks for it on ``PATH``.
        emulator_arguments: Added to its command line.
        log_suffix: Tells the device logs of several processes apart.
        boards: Boards to choose from, of a bench file or of ``--port``; best first.
        wait_s: How long to wait for boards that others use.
        model_store: Where models are kept on a board: uploaded into its memory (``ram``), in its
            flash, or in memory as far as they fit there and do not lie in flash already (``auto``).
        overwrite: A board that was found may be flashed whatever it holds.
    """

    device: str = SIM
    targets: tuple[str, ...] = DEVKIT_TARGETS
    ports: Mapping[str, str] = field(default_factory=dict)
    baud: int | None = None
    max_baud: int | None = None
    model_paths: tuple[Path, ...] = ()
    report: Path = Path("hil-report")
    store: Path | None = None
    history: Path | None = None
    summary: Path | None = None
    node_data: Path | None = None
    metrics: Path | None = None
    jobs: int | None = None
    app: str | None = None
    time_scale: float | None = None
    emulator: str | None = None
    emulator_arguments: tuple[str, ...] = ()
    log_suffix: str = ""
    boards: tuple[BenchBoard, ...] = ()
    wait_s: float = LOCK_WAIT_S
    model_store: str = FLASH
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.device not in DEVICE_KINDS:
            known = ", ".join(DEVICE_KINDS)
            raise ConfigError(f"device {self.device!r}: expected one of {known}")

    @property
    def substrate(self) -> str:
        """What the devices are made of, as far as that is known before they answer."""
        from espdl_hil.report import EMULATED, SILICON, SIMULATED  # NumPy: not for a command line

        if self.device in MACHINES:
            return EMULATED
        return SIMULATED if self.device == SIM else SILICON


def default_targets(device: str) -> tuple[str, ...]:
    """Targets that are tested when none is named."""
    if device not in MACHINES:
        return DEVKIT_TARGETS
    return tuple(target for target in DEVKIT_TARGETS if target in emulated_targets(device))
