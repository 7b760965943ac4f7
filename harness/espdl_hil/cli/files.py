"""Files that commands write, and those that ship with the package."""

from __future__ import annotations

from pathlib import Path

from espdl_hil.errors import ConfigError


def shipped(inside: str, beside: str) -> Path:
    """Find a folder: inside the package when it is installed, else in the checkout.

    Args:
        inside: Its path inside the installed package.
        beside: Its path in a checkout of the project.

    Raises:
        ConfigError: it is at neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / inside, package.parents[1] / beside):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"{inside} is missing in {package}",
        hint="reinstall espdl-hil, or run from a checkout of the project",
    )


def write_text(path: Path, text: str) -> None:
    """Write what a user asked for.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
