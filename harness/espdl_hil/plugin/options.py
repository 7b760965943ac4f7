"""Command-line options: parsed at the edge into one typed value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.proof.settings import DEVICE_KINDS, Settings
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    import pytest


def parse_count(text: str) -> int:
    """Parse a whole number of at least one.

    Raises:
        argparse.ArgumentTypeError: by way of ValueError, when *text* is anything else.
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def add_options(parser: pytest.Parser) -> None:
    """Register ``--hil-*``; ``--target``, ``--port`` and ``--baud`` are pytest-embedded's."""
    group = parser.getgroup("hil", "streaming models on Espressif chips (hardware in the loop)")
    group.addoption(
        "--hil-device",
        choices=DEVICE_KINDS,
        help="run on an attached board or on a simulated devkit "
        "(default: serial once --target or --port is given, else sim)",
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
        "--hil-store", type=Path, metavar="DIR", help="artifact store (default: the user's cache)"
    )
    group.addoption(
        "--hil-jobs",
        type=parse_count,
        metavar="N",
        help="quantize workers at once (default: one a core)",
    )
    group.addoption(
        "--hil-build-dir",
        metavar="DIR",
        help="finished ESP-IDF build of the firmware to flash; '{target}' is replaced "
        "(default: build it with the ESP-IDF of this environment)",
    )


def read_options(config: pytest.Config) -> Settings:
    """Turn pytest's options into a checked value.

    Raises:
        ConfigError: a target is unknown, or targets and ports do not pair up.
    """
    option = config.getoption
    named = [text for text in (option("--target") or "").split("|") if text and text != "auto"]
    ports = [text for text in (option("--port") or "").split("|") if text]
    for target in named:
        if target not in DEVKIT_TARGETS:
            raise ConfigError(
                f"--target {target}: unknown target, expected one of {', '.join(DEVKIT_TARGETS)}"
            )
    if ports and not named:
        raise ConfigError("--port needs --target: say which chip is behind the port")
    if ports and len(ports) != len(named):
        raise ConfigError(
            f"--port names {len(ports)} ports for {len(named)} targets; give one port a target, "
            "separated by '|'"
        )
    return Settings(
        device=option("--hil-device") or ("serial" if named or ports else "sim"),
        targets=tuple(dict.fromkeys(named)) or DEVKIT_TARGETS,
        ports=dict(zip(named, ports, strict=False)),
        baud=int(option("--baud")) if option("--baud") else None,
        model_paths=(*default_model_paths(config), *(option("--hil-models") or ())),
        report=option("--hil-report"),
        store=option("--hil-store"),
        jobs=option("--hil-jobs") or default_jobs(),
        build_dir=option("--hil-build-dir"),
    )


def default_model_paths(config: pytest.Config) -> tuple[Path, ...]:
    """Return ``models/`` of the project when there is one."""
    folder = config.rootpath / "models"
    return (folder,) if folder.is_dir() else ()


def default_jobs() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
