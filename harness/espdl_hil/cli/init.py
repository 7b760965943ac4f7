"""``espdl-hil init``: a project that passes at once, to be made one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.cli.files import shipped
from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    import argparse

FILES = {  # path in the new project: template
    "models/mine.py": "model.py",
    "test_streaming.py": "test_streaming.py",
    ".github/workflows/streaming.yml": "workflow.yml",
    ".gitignore": "gitignore",
}
NEXT = (
    "espdl-hil lint models/mine.py   # can it stream, and what does it keep between chunks",
    "pytest                          # the proof, on simulated devkits",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``init`` and what it takes."""
    parser.description = (
        "Start a project: a commented model file, the test that proves it, a CI "
        "workflow and a .gitignore. Nothing that exists is overwritten: if one of the files is "
        "there, none is written."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: this folder"
    )


def run(options: argparse.Namespace) -> int:
    """Write the files, and say which two commands come next.

    Raises:
        ConfigError: one of the files exists, or the folder cannot be written.
    """
    folder: Path = options.folder
    taken = [name for name in FILES if (folder / name).exists()]
    if taken:
        raise ConfigError(
            f"nothing was written: in {folder.absolute()} there is already {', '.join(taken)}",
            hint="name a new folder: espdl-hil init DIR",
        )
    templates = shipped("_init", "examples/init")
    try:
        for name, template in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # never over another's file
                file.write((templates / template).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    enter = [] if folder.resolve() == Path.cwd() else [f"cd {folder}"]
    print(*(f"wrote {folder / name}" for name in FILES), "next:", sep="\n")
    print(*(f"  {line}" for line in (*enter, *NEXT)), sep="\n")
    return 0
