"""Where the pages and templates are that ship with the package."""

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
