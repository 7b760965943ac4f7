"""Where the firmware's sources are, and what identifies the part that a host compiles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from espdl_hil.errors import ConfigError

SOURCE_LIST = "host/sources.txt"
CODE_SUFFIXES = frozenset((".c", ".cc", ".cpp", ".h", ".hpp", ".inc"))


def firmware_dir() -> Path:
    """Find the firmware project: beside the package in a checkout, inside it when installed.

    Raises:
        ConfigError: Neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "_firmware", package.parents[1] / "firmware"):
        if (candidate / SOURCE_LIST).is_file():
            return candidate
    raise ConfigError(
        f"the firmware sources are missing: no {SOURCE_LIST} in {package / '_firmware'} "
        f"or {package.parents[1] / 'firmware'}",
        hint="reinstall espdl-hil, or run from a checkout of the project",
    )


class CoreSources(NamedTuple):
    """What ``host/sources.txt`` lists, as absolute paths."""

    include_dirs: tuple[Path, ...]  # where headers are found
    files: tuple[Path, ...]  # what is compiled


def core_sources() -> CoreSources:
    """Read the list of what the core is made of.

    Raises:
        ConfigError: The sources cannot be found, or a listed path is missing.
    """
    root = firmware_dir()
    lines = (root / SOURCE_LIST).read_text(encoding="utf-8").splitlines()
    entries = [entry for line in lines if (entry := line.partition("#")[0].strip())]
    paths = {entry: root / entry.removeprefix("-I") for entry in entries}
    for path in paths.values():
        if not path.exists():
            raise ConfigError(f"{root / SOURCE_LIST} lists {path}, which does not exist")
    return CoreSources(
        include_dirs=tuple(path for entry, path in paths.items() if entry.startswith("-I")),
        files=tuple(path for entry, path in paths.items() if not entry.startswith("-I")),
    )


def core_manifest() -> str:
    """List every file that the core may be compiled from with its SHA-256, in a fixed order.

    Raises:
        ConfigError: The sources cannot be found.
    """
    root = firmware_dir()
    files = {root / SOURCE_LIST}
    for folder in ("components", "host"):
        files.update(file for file in (root / folder).rglob("*") if file.suffix in CODE_SUFFIXES)
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(root).as_posix()}\n"
        for file in sorted(files)
        if "tests" not in file.parts
    )
