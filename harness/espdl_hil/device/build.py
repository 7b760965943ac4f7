"""Building the firmware with ESP-IDF, once for each content of its sources."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from espdl_hil.device.ports import ESPRESSIF_JTAG, list_usb_ports
from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from espdl_hil.device.ports import ListPorts

BUILD_TIMEOUT_S: Final = 1800.0
TAIL_LINES: Final = 15
USB_VARIANT: Final = "sdkconfig.usb"  # console and protocol on USB-Serial/JTAG
DISK_FULL: Final = os.strerror(errno.ENOSPC)
KEY_FILE: Final = ".espdl-hil-key"
_GENERATED = frozenset({"build", "managed_components", "sdkconfig", "dependencies.lock"})


def build_firmware(
    target: str,
    source_dir: Path,
    out: Path,
    *,
    variants: Sequence[str] = (),
    progress: Callable[[str], object] | None = None,
) -> Path:
    """Build the firmware through ``idf-build-apps``, unless *out* holds this very build.

    Args:
        target: ESP-IDF target name.
        source_dir: The ESP-IDF project.
        out: Folder for builds and logs; a build goes to ``out/<target>``.
        variants: sdkconfig files of the project that are added to its ``sdkconfig.defaults``; see
            :func:`variants_for`.
        progress: Called with a line of text as the build goes on.

    Returns:
        The build directory.

    Raises:
        ConfigError: No ESP-IDF in this environment, no project, or the build failed; names the log.
    """
    idf_path = os.environ.get("IDF_PATH")
    if not idf_path or not Path(idf_path).is_dir():
        raise ConfigError(
            "the firmware cannot be built: IDF_PATH names no ESP-IDF",
            hint="install ESP-IDF 5.3 or later and run `. $IDF_PATH/export.sh`, or name a finished "
            "build with --hil-build-dir; on a simulated devkit none of this is needed",
        )
    if not (source_dir / "CMakeLists.txt").is_file():
        raise ConfigError(f"{source_dir} is no ESP-IDF project: it has no CMakeLists.txt")
    out.mkdir(parents=True, exist_ok=True)
    name = "-".join((target, *(variant.removeprefix("sdkconfig.") for variant in variants)))
    build_dir = out / name
    key = _content_key(target, source_dir, Path(idf_path))
    command = ["build", "-v", "--target", target, "--paths", str(source_dir)]
    command += ["--build-dir", str(build_dir)]
    command += ["--work-dir", str(out / f"{name}-sources")]  # keeps the sources clean
    if variants:
        command += ["--sdkconfig-defaults", ";".join(("sdkconfig.defaults", *variants))]
    with FileLock(out / f"{name}.lock", timeout=BUILD_TIMEOUT_S):
        if _read_key(build_dir) == key and (build_dir / "flasher_args.json").is_file():
            return build_dir
        (build_dir / KEY_FILE).unlink(missing_ok=True)
        _run_build(command, build_dir, out / f"{name}.log", progress)
        (build_dir / KEY_FILE).write_text(key, encoding="ascii")
    return build_dir


def variants_for(port: str, comports: ListPorts | None = None) -> tuple[str, ...]:
    """Say which variant of the firmware speaks on *port*: the chip's own USB needs its own.

    Args:
        port: Device path or URL.
        comports: Replaces ``serial.tools.list_ports.comports``.
    """
    ids = {found.device: (found.vid, found.pid) for found in list_usb_ports(comports)}
    return (USB_VARIANT,) if ids.get(os.path.realpath(port)) == ESPRESSIF_JTAG else ()


def _run_build(
    arguments: list[str], build_dir: Path, log: Path, progress: Callable[[str], object] | None
) -> None:
    overdue = threading.Event()
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(
            [sys.executable, "-m", "espdl_hil.device.idf_launcher", *arguments],
            stdin=subprocess.PIPE,  # the launcher ends the whole build when this closes
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")

        def stop() -> None:
            overdue.set()
            if process.stdin is not None:
                process.stdin.close()

        timer = threading.Timer(BUILD_TIMEOUT_S, stop)
        timer.start()
        try:
            for line in process.stdout:
                sink.write(line)
                if progress is not None:
                    progress(line.rstrip())
        finally:
            timer.cancel()
            process.stdin.close()
    if process.returncode != 0 or not (build_dir / "flasher_args.json").is_file():
        output = log.read_text(encoding="utf-8", errors="replace")
        tail = output.splitlines()[-TAIL_LINES:]
        how = (
            f"took longer than {BUILD_TIMEOUT_S:g} s"
            if overdue.is_set()
            else f"failed (exit {process.returncode})"
        )
        if DISK_FULL in output:
            how += f": {DISK_FULL.lower()}"
        raise ConfigError(
            "\n  ".join((f"building the firmware in {build_dir} {how}", *tail)),
            hint=f"the whole output is in {log}",
        )


def _content_key(target: str, source_dir: Path, idf_path: Path) -> str:
    """Hash of everything that determines the build: sources, target, ESP-IDF."""
    digest = hashlib.sha256(f"{target}\n{idf_path}\n{_idf_version(idf_path)}\n".encode())
    for path in sorted(_sources(source_dir)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(source_dir).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _GENERATED or path.name.startswith("build"):
            continue
        if path.is_dir():
            yield from _sources(path)
        elif path.is_file():
            yield path


def _idf_version(idf_path: Path) -> str:
    for name in ("version.txt", "tools/cmake/version.cmake"):
        file = idf_path / name
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace")
    return "unknown"


def _read_key(build_dir: Path) -> str:
    try:
        return (build_dir / KEY_FILE).read_text(encoding="ascii")
    except OSError:
        return ""
