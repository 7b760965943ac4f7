"""Command-line options: parsed at the edge into one typed value."""

from __future__ import annotations

import argparse
import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from espdl_hil.device.bench import BENCH_VARIABLE, Bench, BenchBoard, read_bench
from espdl_hil.device.claim import LOCK_WAIT_S
from espdl_hil.device.machine import MACHINES
from espdl_hil.errors import ConfigError
from espdl_hil.plugin.worker import worker_count, worker_name
from espdl_hil.proof.settings import (
    DEVICE_KINDS,
    FLASH,
    MODEL_STORES,
    SERIAL,
    SIM,
    Settings,
    default_targets,
)
from espdl_hil.targets import CHIP_TARGETS, DEVKIT_TARGETS

if TYPE_CHECKING:
    import pytest


HISTORY, OFF = "history.sqlite3", "off"


def parse_count(text: str) -> int:
    """Parse a whole number of at least one.

    Raises:
        argparse.ArgumentTypeError: *text* is anything else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def parse_scale(text: str) -> float:
    """Parse a factor above zero.

    Raises:
        argparse.ArgumentTypeError: *text* is anything else.
    """
    if (scale := _finite(text)) > 0:
        return scale
    raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")


def parse_seconds(text: str) -> float:
    """Parse a time of zero or more.

    Raises:
        argparse.ArgumentTypeError: *text* is anything else.
    """
    if (seconds := _finite(text)) >= 0:
        return seconds
    raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, not {text!r}")


def _finite(text: str) -> float:
    """A finite number; NaN, which passes no bound, for anything else."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def add_options(parser: pytest.Parser) -> None:
    """Register ``--hil-*``; ``--target``, ``--port`` and ``--baud`` are pytest-embedded's."""
    group = parser.getgroup("hil", "streaming models on Espressif chips (hardware in the loop)")
    group.addoption(
        "--hil-device",
        choices=DEVICE_KINDS,
        help="run on an attached board, on a simulated devkit, or on the firmware in an emulator "
        "(default: serial once --target or --port is given, else sim)",
    )
    group.addoption(
        "--hil-timeout-scale",
        type=parse_scale,
        metavar="FACTOR",
        help="multiply every deadline of the devices (default: 1; for emulators, how much slower "
        "than a chip they boot)",
    )
    group.addoption(
        "--hil-models",
        action="append",
        type=Path,
        metavar="PATH",
        help="add a model file or a folder of them to those in ./models; repeatable",
    )
    group.addoption(
        "--hil-report",
        type=Path,
        default=Path("hil-report"),
        metavar="DIR",
        help="where results.json and report.html go (default: %(default)s)",
    )
    group.addoption(
        "--hil-history",
        metavar="FILE",
        help="where each run is appended to (default: history.sqlite3 in the user's cache, or in "
        "--hil-store; off: nowhere)",
    )
    group.addoption(
        "--hil-summary", type=Path, metavar="FILE", help="write a summary in Markdown, for CI"
    )
    group.addoption(
        "--hil-node-data",
        type=Path,
        metavar="DIR",
        help="write the layers' quality for Model Explorer (.json) and Netron (.onnx)",
    )
    group.addoption(
        "--hil-metrics", type=Path, metavar="FILE", help="write all figures as OpenMetrics text"
    )
    group.addoption(
        "--hil-store", type=Path, metavar="DIR", help="artifact store (default: the user's cache)"
    )
    group.addoption(
        "--hil-jobs",
        type=parse_count,
        metavar="N",
        help="quantize workers at once (default: one a core)",
    )
    group.addoption(
        "--hil-app",
        metavar="DIR",
        help="your own app with hil_serve in it to flash: an ESP-IDF project, or a finished build; "
        "'{target}' is replaced (default: build the firmware with the ESP-IDF of this environment)",
    )

    group.addoption(
        "--hil-bench",
        type=Path,
        metavar="FILE",
        help="bench file (TOML) with the boards to choose from (default: ESPDL_HIL_BENCH)",
    )
    group.addoption(
        "--hil-board",
        action="append",
        metavar="NAME",
        help="use boards of the bench with this name or tag only; repeatable",
    )
    group.addoption(
        "--hil-boards",
        type=parse_count,
        metavar="N",
        help="use N boards side by side, each with a worker of pytest-xdist (the same as -n N)",
    )
    group.addoption(
        "--hil-wait",
        type=parse_seconds,
        default=LOCK_WAIT_S,
        metavar="SECONDS",
        help="stand in the queue for boards that others use (default: %(default)g)",
    )
    group.addoption(
        "--hil-model-store",
        choices=MODEL_STORES,
        default=FLASH,
        help="keep models in the flash of a board; upload them into its memory, and write no flash "
        "(ram); or flash only what neither fits its memory nor lies in flash already (auto; "
        "default: %(default)s)",
    )
    group.addoption(
        "--hil-max-baud",
        type=parse_count,
        metavar="RATE",
        help="highest baud rate to agree on with the device once it answers (default: 2000000)",
    )
    group.addoption(
        "--hil-overwrite",
        action="store_true",
        help="flash a board that was looked for even if it holds another firmware; needed once "
        "for each board",
    )


def read_settings(config: pytest.Config) -> Settings:
    """Turn pytest's options into a checked value.

    Raises:
        ConfigError: a target is unknown, targets and ports do not pair up, or a number is none.
    """
    option = config.getoption
    named = [text for text in (option("--target") or "").split("|") if text and text != "auto"]
    ports = [text for text in (option("--port") or "").split("|") if text]
    services = (option("--embedded-services") or "").replace("|", ",").split(",")
    asked = option("--hil-device") or next((kind for kind in MACHINES if kind in services), None)
    bench = _bench(config, asked, ports)
    device = asked or (SERIAL if named or bench else SIM)
    for target in named:
        if target not in (known := DEVKIT_TARGETS if device == SIM else CHIP_TARGETS):
            raise ConfigError(
                f"--target {target}: unknown target, expected one of {', '.join(known)}"
            )
    if ports and not named:
        raise ConfigError("--port needs --target: say which chip is behind the port")
    if ports and len(ports) != len(named):
        raise ConfigError(
            f"--port names {len(ports)} ports for {len(named)} targets; give one port a target, "
            "separated by '|'"
        )
    targets = tuple(
        dict.fromkeys(named or [board.target for board in bench.boards] if bench else named)
    )
    boards = bench.select(targets, option("--hil-board") or ()) if bench else ()
    if device == SERIAL and ports and not any("*" in port for port in ports):
        pairs = zip(named, ports, strict=True)
        boards = tuple(BenchBoard(port, target, port) for target, port in pairs)
    return Settings(
        device=device,
        targets=targets or default_targets(device),
        ports=dict(zip(named, ports, strict=False)),
        baud=_baud(option("--baud")),
        model_paths=(*_default_model_paths(config), *(option("--hil-models") or ())),
        history=_history(option("--hil-history"), option("--hil-store")),
        jobs=option("--hil-jobs") or max(1, (os.cpu_count() or 1) // worker_count(config)),
        time_scale=option("--hil-timeout-scale"),
        emulator=option(f"--{device}-prog-path") if device in MACHINES else None,
        emulator_arguments=tuple(
            shlex.split(option(f"--{device}-extra-args") or "") if device in MACHINES else ()
        ),
        log_suffix=f"-{name}" if (name := worker_name(config)) else "",
        boards=boards,
        wait_s=option("--hil-wait"),
        report=option("--hil-report"),
        store=option("--hil-store"),
        summary=option("--hil-summary"),
        node_data=option("--hil-node-data"),
        metrics=option("--hil-metrics"),
        app=option("--hil-app"),
        max_baud=option("--hil-max-baud"),
        model_store=option("--hil-model-store"),
        overwrite=option("--hil-overwrite"),
    )


def _history(text: str | None, store: Path | None) -> Path | None:
    """The file of the history; None for none."""
    if text == OFF:
        return None
    if text:
        return Path(text)
    return (store or user_cache_path("espdl-hil")) / HISTORY


def _bench(config: pytest.Config, device: str | None, ports: list[str]) -> Bench | None:
    """Read the bench file, if boards are to come from one.

    Raises:
        ConfigError: it is wrong, or does not go with the rest of the command line.
    """
    option = config.getoption
    path = option("--hil-bench")
    if path and (ports or device not in (None, SERIAL)):
        other = "--port" if ports else f"--hil-device {device}"
        raise ConfigError(
            f"--hil-bench and {other} both say what to run on",
            hint="leave one of them out; --hil-board NAME takes one board of the bench",
        )
    named = os.environ.get(BENCH_VARIABLE)
    if path is None and named and not ports and device in (None, SERIAL):
        path = Path(named)
    if path is None and option("--hil-board"):
        raise ConfigError("--hil-board needs a bench file", hint="name it with --hil-bench")
    return None if path is None else read_bench(path)


def _baud(text: str | None) -> int | None:
    try:
        return parse_count(text) if text else None
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--baud: {error}", hint="the usual rate is 115200") from None


def _default_model_paths(config: pytest.Config) -> tuple[Path, ...]:
    """Return ``models/`` of the project when there is one."""
    folder = config.rootpath / "models"
    return (folder,) if folder.is_dir() else ()
