"""``espdl-hil init``: what is written, and what is left alone."""

from __future__ import annotations

import pytest

from espdl_hil.__main__ import main
from espdl_hil.cli.init import FILES, NEXT
from espdl_hil.model import load_model


def test_the_files_are_there_and_the_next_commands_are_said(tmp_path, capsys):
    folder = tmp_path / "new" / "project"

    assert main(["init", str(folder)]) == 0

    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == set(FILES)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        *(f"wrote {folder / name}" for name in FILES),
        "next:",
        f"  cd {folder}",
        *(f"  {line}" for line in NEXT),
    ]
    assert load_model(folder / "models" / "mine.py").name == "mine"


def test_in_the_folder_itself_there_is_no_cd(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "cd " not in capsys.readouterr().out


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(tmp_path, capsys, name):
    theirs = tmp_path / name
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text("theirs")

    assert main(["init", str(tmp_path)]) == 2

    assert theirs.read_text() == "theirs"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
    assert capsys.readouterr().err == (
        f"error: nothing was written: in {tmp_path} there is already {name}\n"
        "  hint: name a new folder: espdl-hil init DIR\n"
    )


def test_a_folder_that_is_a_file_is_one_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "project")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Not a directory" in error
