"""Which files a model file reads, folders it lists, and what it looks for that is not there."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from espdl_hil.quantize.dependencies import Dependencies
from espdl_hil.quantize.recipe import hash_path

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = """
import json, sys
from pathlib import Path
from espdl_hil.quantize.dependencies import Dependencies

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
heard = Dependencies(folder / "model.py")
(folder / "before.txt").read_text()
with heard.recording():
    import helper
    import json.tool
    (folder / "model.py").read_text()
    (folder / "data" / "weights.bin").read_bytes()
    (folder.parent / "outside.txt").read_text()
    (folder / "written.txt").write_text("")
(folder / "after.txt").read_text()
print(json.dumps(heard.hashes(folder)))
"""


def heard(folder: Path) -> dict[str, str]:
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_what_is_imported_and_read_inside_is_hashed(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "outside.txt").write_text("outside")
    for name in ("model.py", "helper.py", "before.txt", "after.txt", "data/weights.bin"):
        (folder / name).write_text(f"# {name}")
    first = heard(folder)
    assert set(first) == {"helper.py", "data/weights.bin", "../outside.txt"}
    assert heard(folder) == first  # the second run imports the compiled helper
    (folder / "helper.py").write_text("# another helper")
    assert heard(folder)["helper.py"] != first["helper.py"]


def write(name: str, text: str = "changed") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def lead(name: str, to: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return change


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


# What is done while it is recorded, a change that counts, and one that does not.
LOOKED_FOR: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "link": (
        "(folder / 'latest.pt').read_bytes()",
        lead("latest.pt", "run2.pt"),
        write("run2.pt"),
    ),
    "linked_content": (
        "(folder / 'latest.pt').read_bytes()",
        write("same.pt"),  # where it leads by then
        lead("latest.pt", "same.pt"),
    ),
    "linked_folder": (
        "(folder / 'run' / 'w.pt').read_bytes()",
        lead("run", "second"),
        write("second/w.pt"),
    ),
    "behind_a_link": (
        "(folder / 'run' / '..' / 'run1.pt').read_bytes()",
        write("run1.pt"),
        write("run2.pt"),
    ),
    "read_and_written": (
        "with open(folder / 'run1.pt', 'r+b') as file: file.read()",
        write("run1.pt"),
        write("run2.pt"),
    ),
    "written_over": (
        "with open('run1.pt', 'w+b'), open('run2.pt') as file: file.read()",
        write("run2.pt"),
        write("run1.pt"),
    ),
    "not_there": (
        "with contextlib.suppress(FileNotFoundError): open(folder / 'later.pt')",
        write("later.pt"),
        write("other.pt"),
    ),
    "exists": ("(folder / 'later.pt').exists()", write("later.pt"), write("other.pt")),
    "is_file": ("os.path.isfile(folder / 'later.pt')", write("later.pt"), write("other.pt")),
    "access": ("os.access(folder / 'later.pt', os.R_OK)", write("later.pt"), write("other.pt")),
    "globbed": ("glob.glob(str(folder / 'later.pt'))", write("later.pt"), write("other.pt")),
    "was_there": ("(folder / 'run1.pt').exists()", remove("run1.pt"), remove("run2.pt")),
    "glob": ("glob.glob(str(folder / 'run*.pt'))", write("run3.pt"), write("run1.pt")),
    "path_glob": ("list(folder.glob('run*.pt'))", remove("run1.pt"), write("run1.pt")),
    "listed": ("os.listdir(folder / 'first')", write("first/new.pt"), write("new.pt")),
    "listed_here": (
        "os.listdir()",
        write("new.pt"),
        lambda folder: (folder / "__pycache__").mkdir(),
    ),
    "walked": ("list(os.walk(folder))", write("first/new.pt"), write("first/.new.pt")),
    "not_imported": (
        "with contextlib.suppress(ImportError): import _later",
        write("_later.py"),
        write("_other.py"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
        (folder / name / "w.pt").write_text(name)
    for name, text in {"model.py": "", "run1.pt": "1", "run2.pt": "2", "same.pt": "1"}.items():
        (folder / name).write_text(text)
    (folder / "latest.pt").symlink_to("run1.pt")
    (folder / "run").symlink_to("first")
    monkeypatch.chdir(folder)
    return folder


def recorded(folder: Path, body: str, *ignored: Path) -> dict[str, str]:
    dependencies = Dependencies(folder / "model.py", *ignored)
    with dependencies.recording():
        exec(body, {"folder": folder, "contextlib": contextlib, "glob": glob, "os": os})
    return dependencies.hashes(folder)


def is_current(folder: Path, hashes: dict[str, str]) -> bool:
    return all(hash_path(folder / name) == expected for name, expected in hashes.items())


@pytest.mark.parametrize("name", LOOKED_FOR)
def test_what_was_looked_for_counts_and_nothing_else(folder: Path, name: str) -> None:
    body, counts, does_not = LOOKED_FOR[name]
    hashes = recorded(folder, body)
    assert hashes
    assert is_current(folder, hashes)
    does_not(folder)
    assert is_current(folder, hashes)
    counts(folder)
    assert not is_current(folder, hashes)


@pytest.mark.parametrize(
    "body",
    [
        "with open(folder / 'log.txt', 'a') as file: file.write('x')",
        "with open(folder / 'log.txt', 'a+') as file: file.read()",
        "with open(folder / 'log.txt', 'x+') as file: file.read()",
        "folder.parent.joinpath('later.pt').exists()",  # not the model file's folder
        "import json.tool; os.path.exists(json.__file__)",
        "(folder / 'model.py').stat(); folder.exists()",
    ],
)
def test_what_does_not_count(folder: Path, body: str) -> None:
    assert recorded(folder, body) == {}


def test_a_link_of_the_authors_counts_wherever_it_leads(folder: Path, tmp_path: Path) -> None:
    installed = Path(os.__file__)
    (folder / "mine").symlink_to(installed)
    (tmp_path / "lib").symlink_to(installed.parent)  # as /lib64 is one
    body = "(folder / 'mine').read_bytes(); (folder.parent / 'lib' / 'os.py').read_bytes()"
    assert set(recorded(folder, body)) == {"mine"}


def test_an_ignored_folder_around_the_model_files_does_not_hide_them(folder: Path) -> None:
    body = "(folder / 'run1.pt').read_bytes(); (folder / 'first' / 'w.pt').read_bytes()"
    assert set(recorded(folder, body, folder.parent)) == {"run1.pt", "first/w.pt"}
    assert set(recorded(folder, body, folder.parent, folder / "first")) == {"run1.pt"}


def test_links_in_a_circle_and_other_names_of_nothing(folder: Path) -> None:
    (folder.parent / "circle").symlink_to("circle")
    body = """
for name in (folder.parent / 'circle', folder / ('x' * 300), folder / 'no' / 'such', 'a\\0b', b'c'):
    with contextlib.suppress(OSError, ValueError): open(name)
    with contextlib.suppress(OSError, ValueError): os.stat(name)
    with contextlib.suppress(OSError, ValueError): os.listdir(name)
"""
    assert recorded(folder, body) == dict.fromkeys(["../circle", "c", "no/such", "x" * 300], "")


def test_what_cannot_be_read_is_as_what_is_not_there(tmp_path: Path) -> None:
    assert hash_path(tmp_path / "no") == hash_path(tmp_path / ("x" * 300)) == ""
    assert hash_path(Path("/dev/zero")) == ""  # which never ends
    assert hash_path(tmp_path) != ""


def test_nothing_is_recorded_afterwards(folder: Path) -> None:
    before = os.stat
    dependencies = Dependencies(folder / "model.py")
    with dependencies.recording():
        assert os.stat is not before
    assert os.stat is before
    (folder / "run1.pt").read_bytes()
    list(folder.iterdir())
    assert dependencies.hashes(folder) == {}


def test_the_process_is_left_as_it_was(folder: Path) -> None:
    able = (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)
    before = (os.stat, os.lstat, os.access, *map(set, able))
    with Dependencies().recording():
        assert os.stat is not before[0]
        assert os.stat in os.supports_fd  # as shutil asks
    assert (os.stat, os.lstat, os.access, *map(set, able)) == before
