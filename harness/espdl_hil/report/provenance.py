"""Where results come from: versions of all that had a part, and the models' own repository."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_COMPONENTS = ("espdl-hil", "esp-ppq", "torch", "numpy", "esptool", "pytest", "pytest-embedded")
_GIT_DEADLINE_S = 10.0  # a repository on a slow network drive


@dataclass(frozen=True)
class Commit:
    """The commit that model files are at.

    Attributes:
        id: The full hash.
        dirty: Whether a tracked file was changed since, or a model's folder has untracked ones.
    """

    id: str
    dirty: bool


def commit_of(files: Iterable[Path]) -> Commit | None:
    """Find the commit of the repository that holds files.

    Returns:
        The commit; None if there is no repository, no git, or more than one commit.
    """
    folders = sorted({file.resolve().parent for file in files})
    found = {_git(folder, "rev-parse", "HEAD") for folder in folders}
    if len(found) != 1 or not (commit := found.pop()):
        return None
    changed = _git(folders[0], "status", "--porcelain", "--untracked-files=no")
    untracked = [_git(folder, "status", "--porcelain", "--", ".") for folder in folders]
    return Commit(commit, dirty=any([changed, *untracked]))


def _git(folder: Path, *arguments: str) -> str:
    """What git says, empty if it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment() -> dict[str, str]:
    """Component to version; what is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in _COMPONENTS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            continue
    return versions
