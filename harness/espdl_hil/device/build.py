"""Building the firmware with ESP-IDF, once for each content of its sources."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from espdl_hil.device.idf_launcher import IDF_PY
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
FINISHED: Final = "flasher_args.json"  # what a build that is done has
_GENERATED = frozenset({"managed_components", "sdkconfig", "dependencies.lock"})


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
    idf_path = _find_idf()
    if not (source_dir / "CMakeLists.txt").is_file():
        raise ConfigError(f"{source_dir} is no ESP-IDF project: it has no CMakeLists.txt")
    out.mkdir(parents=True, exist_ok=True)
    name = "-".join((target, *(variant.removeprefix("sdkconfig.") for variant in variants)))
    build_dir = out / name
    key = _content_key(target, source_dir, idf_path)
    command = ["build", "-v", "--target", target, "--paths", str(source_dir)]
    command += ["--build-dir", str(build_dir)]
    command += ["--work-dir", str(out / f"{name}-sources")]  # keeps the sources clean
    if variants:
        command += ["--sdkconfig-defaults", ";".join(("sdkconfig.defaults", *variants))]
    with FileLock(out / f"{name}.lock", timeout=BUILD_TIMEOUT_S):
        built = build_dir / KEY_FILE
        if (
            built.is_file()
            and built.read_bytes() == key.encode()
            and (build_dir / FINISHED).is_file()
        ):
            return build_dir
        built.unlink(missing_ok=True)
        _run_build(command, build_dir, out / f"{name}.log", progress)
        built.write_bytes(key.encode())
    return build_dir


def find_app(folder: Path, target: str, out: Path) -> Path:
    """Return the build of a user's own app; a project is built as ``idf.py build`` would.

    Unlike :func:`build_firmware` each call asks ESP-IDF, which builds what has changed: components
    outside of the project belong to the app, too.

    Args:
        folder: A finished build, or an ESP-IDF project. A ``sdkconfig`` in it counts, if it is of
            this target, and stays as it is.
        target: ESP-IDF target name.
        out: Folder for builds and logs.

    Raises:
        ConfigError: It is neither, there is no ESP-IDF in this environment, or the build failed.
    """
    if (folder / FINISHED).is_file():
        return folder
    if not (folder / "CMakeLists.txt").is_file():
        what = "neither a finished build nor a project" if folder.is_dir() else "no such folder"
        raise ConfigError(
            f"--hil-app {folder}: {what}",
            hint="name an ESP-IDF project with hil_serve in it, or the build folder that idf.py "
            "wrote for this target",
        )
    idf_path = _find_idf()
    source = folder.resolve()
    name = f"{source.name}-{hashlib.sha256(str(source).encode()).hexdigest()[:8]}-{target}"
    build_dir = out / name
    build_dir.mkdir(parents=True, exist_ok=True)
    sdkconfig = build_dir / "sdkconfig"
    command = [IDF_PY, str(idf_path / "tools" / "idf.py"), "-C", str(source), "-B", str(build_dir)]
    command += [f"-DIDF_TARGET={target}", f"-DSDKCONFIG={sdkconfig}", "build"]
    with FileLock(out / f"{name}.lock", timeout=BUILD_TIMEOUT_S):
        sdkconfig.unlink(missing_ok=True)  # it would outlive a change of the defaults
        own = source / "sdkconfig"
        if own.is_file() and f'CONFIG_IDF_TARGET="{target}"' in own.read_text("utf-8"):
            shutil.copyfile(own, sdkconfig)
        _run_build(command, build_dir, out / f"{name}.log", None)
    return build_dir


def _find_idf() -> Path:
    idf_path = os.environ.get("IDF_PATH")
    if not idf_path or not Path(idf_path).is_dir():
        raise ConfigError(
            "the firmware cannot be built: IDF_PATH names no ESP-IDF",
            hint="install ESP-IDF 5.3 or later and run `. $IDF_PATH/export.sh`, or name a finished "
            "build with --hil-app; on a simulated devkit none of this is needed",
        )
    return Path(idf_path)


def variants_for(port: str, comports: ListPorts | None = None) -> tuple[str, ...]:
    """Say which variant of the firmware speaks on *port*: the chip's own USB needs its own."""
    device = os.path.realpath(port)
    ids = (found.ids[:2] for found in list_usb_ports(comports) if found.device == device)
    return (USB_VARIANT,) if ESPRESSIF_JTAG in ids else ()


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
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def stop() -> None:
            overdue.set()
            stdin.close()

        timer = threading.Timer(BUILD_TIMEOUT_S, stop)
        timer.start()
        try:
            for line in stdout:
                sink.write(line)
                if progress is not None:
                    progress(line.rstrip())
        finally:
            timer.cancel()
            stdin.close()
    if process.returncode != 0 or not (build_dir / FINISHED).is_file():
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
        if path.name.startswith((".", "build")) or path.name in _GENERATED:
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
