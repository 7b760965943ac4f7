"""``espdl-hil doctor``: what of this host would stop a run, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

DISTRIBUTION: Final = "espdl-hil"
CHECKED_PACKAGES: Final = ("esp-ppq", "torch", "esptool", "pytest-embedded")
LARGE_STORE_BYTES: Final = 10 << 30
SCARCE_BYTES: Final = 2 << 30  # torch, a build and a report take that
COMPILERS: Final = {"esp32s3": "xtensa-esp32s3-elf-gcc", "esp32p4": "riscv32-esp-elf-gcc"}


class Health(StrEnum):
    """How bad a finding is; the worst decides the exit code."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Examined:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        severity: ``ok``; ``warning``: something cannot be used; ``error``: nothing can be run.
        detail: What was found.
        mend: What to do; a command where one helps.
    """

    what: str
    severity: Health
    detail: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``doctor`` and what it takes."""
    parser.description = (
        "Looks at Python, compilers, ESP-IDF, serial ports, the bench and the caches; "
        "changes nothing, and opens no port. Exit code 0: all is well; 1: something cannot be "
        "used, such as boards; 2: nothing can be run."
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--bench", type=Path, metavar="FILE", help="the bench file (default: ESPDL_HIL_BENCH)"
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found.

    Returns:
        0, 1 or 2, by the worst finding.
    """
    findings = examine(options.bench)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.severity:<7}  {finding.what}: {finding.detail}")
            if finding.mend:
                print(f"{'':<7}  → {finding.mend}")
    return max(list(Health).index(finding.severity) for finding in findings)


def examine(bench: Path | None = None) -> list[Examined]:
    """Look at everything; a check that itself fails is a finding."""
    checks: tuple[tuple[str, Callable[[], Iterator[Examined]]], ...] = (
        ("Python", check_python),
        ("packages", check_packages),
        ("C++ compiler", check_compiler),
        ("ESP-IDF", check_idf),
        ("ESP-DL", check_espdl),
        ("locks", check_locks),
        ("bench", lambda: check_bench(bench)),
        ("ports", check_ports),
        ("store", check_store),
    )
    found: list[Examined] = []
    for what, check in checks:
        try:
            found += check()
        except ConfigError as error:
            found.append(Examined(what, Health.ERROR, error.message, error.hint or ""))
        except OSError as error:
            found.append(Examined(what, Health.WARNING, f"cannot be looked at: {error}"))
    return found


def check_python() -> Iterator[Examined]:
    """The version, and the bound that the exporter sets."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    bound = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if SpecifierSet(bound).contains(version, prereleases=True):
        yield Examined("Python", Health.OK, f"{version} ({bound})")
    else:
        mend = "make a virtual environment with such a Python: python3.12 -m venv .venv"
        yield Examined("Python", Health.ERROR, f"{version}, esp-ppq needs {bound}", mend)


def check_packages() -> Iterator[Examined]:
    """Versions against what this release was made for."""
    from packaging.requirements import Requirement

    wanted = {
        requirement.name: requirement
        for requirement in map(Requirement, importlib.metadata.requires(DISTRIBUTION) or [])
        if requirement.marker is None
    }
    for name in CHECKED_PACKAGES:
        requirement = wanted[name]
        mend = f"pip install '{requirement}'"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Examined(name, Health.ERROR, "is not installed", mend)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield Examined(name, Health.OK, f"{version} ({requirement.specifier or 'any'})")
        else:
            detail = f"{version}, this release needs {requirement.specifier}"
            yield Examined(name, Health.ERROR, detail, mend)


def check_compiler() -> Iterator[Examined]:
    """What compiles the firmware core for simulated devkits, and CMake for its C++ tests."""
    from espdl_hil.simulator.build import find_compiler

    yield Examined("C++ compiler", Health.OK, shutil.which(find_compiler()[0]) or "")
    if path := shutil.which("cmake"):
        yield Examined("CMake", Health.OK, path)
    else:
        mend = "apt install cmake (only the firmware's own C++ tests need it)"
        yield Examined("CMake", Health.WARNING, "is not installed", mend)


def check_idf() -> Iterator[Examined]:
    """Unset, wrong, half installed and complete are told apart."""
    install = "install ESP-IDF 5.3 or later, then: . $IDF_PATH/export.sh"
    named = os.environ.get("IDF_PATH")
    if not named:
        mend = f"{install}; or flash a finished build with --hil-app"
        detail = "IDF_PATH is not set: firmware for boards cannot be built here"
        yield Examined("ESP-IDF", Health.WARNING, detail, mend)
        return
    folder = Path(named)
    if not (folder / "tools" / "idf.py").is_file():
        detail = f"IDF_PATH is {folder}, which holds no ESP-IDF (no tools/idf.py)"
        yield Examined("ESP-IDF", Health.ERROR, detail, install)
        return
    missing = []
    python = os.environ.get("IDF_PYTHON_ENV_PATH")
    if not python or not Path(python).is_dir():
        missing.append("its Python environment (IDF_PYTHON_ENV_PATH)")
    missing += [
        f"the compiler for {target} ({name})"
        for target, name in COMPILERS.items()
        if not shutil.which(name)
    ]
    version = idf_version(folder)
    if missing:
        detail = f"{version} in {folder} is half installed; missing: {', '.join(missing)}"
        targets = ",".join(COMPILERS)
        mend = f"{folder}/install.sh {targets} && . {folder}/export.sh"
        yield Examined("ESP-IDF", Health.WARNING, detail, mend)
    else:
        yield Examined("ESP-IDF", Health.OK, f"{version} in {folder}")


def idf_version(folder: Path) -> str:
    """Version of an ESP-IDF, as its CMake file says it."""
    try:
        text = (folder / "tools" / "cmake" / "version.cmake").read_text(errors="replace")
    except OSError:
        return "unknown version"
    parts = re.findall(r"set\(IDF_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)\)", text)
    return ".".join(parts) if len(parts) == 3 else "unknown version"


def check_espdl() -> Iterator[Examined]:
    """The version that the firmware is built with against those whose arithmetic is known."""
    from espdl_hil.simulator.sources import firmware_dir
    from espdl_hil.targets import KNOWN_ESPDL_VERSIONS

    folder = firmware_dir()
    text = (folder / "main" / "idf_component.yml").read_text(encoding="utf-8")
    pinned = re.search(r'espressif/esp-dl:\s*"?==([\d.]+)"?', text)
    known = ", ".join(KNOWN_ESPDL_VERSIONS)
    if pinned and pinned[1] in KNOWN_ESPDL_VERSIONS:
        yield Examined("ESP-DL", Health.OK, f"the firmware in {folder} is built with {pinned[1]}")
    else:
        version = pinned[1] if pinned else "any version"
        detail = f"the firmware in {folder} is built with {version}; arithmetic is known of {known}"
        yield Examined(
            "ESP-DL", Health.WARNING, detail, 'espressif/esp-dl: "==…" in idf_component.yml'
        )


def check_locks() -> Iterator[Examined]:
    """Where boards are claimed, by whom, and what killed runs have left."""
    from espdl_hil.device.claim import guarded, live_claims, lock_directory

    folder = lock_directory()
    with guarded(folder):
        before = len(list(folder.glob("*.claim")))
        claims = live_claims(folder)
        left = len(list(folder.glob("*.claim"))) - len(claims)
    stale = f", {before - len(claims)} of ended runs removed" if before > len(claims) else ""
    detail = f"{folder}: {len(claims)} claims{stale}"
    if left:
        mend = f"rm {folder}/*.claim as their owner, when nothing runs (they do no harm)"
        yield Examined("locks", Health.WARNING, f"{detail}; {left} cannot be removed", mend)
    else:
        yield Examined("locks", Health.OK, detail)
    for claim in claims:
        names = ", ".join(sorted(claim.holds or claim.wants))
        verb = "holds" if claim.holds else "waits for"
        yield Examined("claim", Health.OK, f"{claim} {verb} {names}")


def check_bench(path: Path | None) -> Iterator[Examined]:
    """The bench file, and boards that are out of service."""
    from espdl_hil.device.bench import BENCH_VARIABLE, read_bench
    from espdl_hil.device.service_record import read_record

    named = path or os.environ.get(BENCH_VARIABLE)
    if not named:
        return
    try:
        bench = read_bench(Path(named))
    except ConfigError as error:
        yield Examined("bench", Health.WARNING, error.message, error.hint or "")
        return
    yield Examined("bench", Health.OK, f"{bench.path}: {len(bench.boards)} boards")
    for board in bench.boards:
        if out := read_record(board.identity).out:
            mend = f"espdl-hil bench clear {board.name} --bench {bench.path}"
            detail = f"{board.name} is out of service: {out}"
            yield Examined("board", Health.WARNING, detail, mend)


def check_ports() -> Iterator[Examined]:
    """Serial ports that boards may be behind: permission, and who has them open."""
    from espdl_hil.device.ports import BRIDGES, list_usb_ports

    found = [port for port in list_usb_ports() if port.vid in BRIDGES]
    if not found:
        yield Examined("ports", Health.OK, "no USB port of a board; simulated devkits need none")
    for port in found:
        detail = f"{port}, serial number {port.serial_number or 'none'}"
        if not os.access(port.device, os.R_OK | os.W_OK):
            mend = "sudo usermod -aG dialout $USER (or uucp), then log in again"
            yield Examined("port", Health.WARNING, f"{detail}: permission denied", mend)
        elif holder := open_by(port.device):
            mend = "end that program, or use another board"
            yield Examined("port", Health.WARNING, f"{detail}: open by {holder}", mend)
        else:
            yield Examined("port", Health.OK, detail)


def open_by(device: str) -> str:
    """Process that has a file open, as far as this user may see; empty for none."""
    wanted = os.path.realpath(device)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == wanted:
                name = (link.parents[1] / "comm").read_text(errors="replace").strip()
                return f"pid {link.parents[1].name} ({name})"
        except OSError:
            continue
    return ""


def check_store() -> Iterator[Examined]:
    """Size of the artifact store, and room for more."""
    from espdl_hil.quantize.store import default_root

    root = default_root()
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{root}: {size / (1 << 20):.0f} MiB, {free / (1 << 30):.1f} GiB free"
    if free < SCARCE_BYTES:
        yield Examined("store", Health.WARNING, detail, "free some space, or use --hil-store")
    elif size > LARGE_STORE_BYTES:
        yield Examined("store", Health.WARNING, detail, f"rm -r {root} (it is made anew)")
    else:
        yield Examined("store", Health.OK, detail)
