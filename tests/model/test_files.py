"""Model files: what loads, and the one clear message of what does not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.model import load_model, load_models

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = """
from espdl_hil import StreamingModel
MODEL = StreamingModel(
    name={name!r}, build=print, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,)
)
"""


def write(folder: Path, file: str, text: str | None = None, *, name: str = "m") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / file
    path.write_text(TEMPLATE.format(name=name) if text is None else text)
    return path


def test_files_and_folders_load_in_order(tmp_path: Path) -> None:
    single = write(tmp_path / "one", "z.py", name="z")
    write(tmp_path / "many", "b.py", name="b")
    write(tmp_path / "many", "a.py", name="a")
    write(tmp_path / "many", "_helper.py", "raise RuntimeError")
    models = load_models([single, tmp_path / "many", single])
    assert list(models) == ["z", "a", "b"]
    assert models["z"].source == single


def test_helpers_beside_a_model_do_not_leak_into_another_folder(tmp_path: Path) -> None:
    for folder, name in (("one", "first"), ("two", "second")):
        write(tmp_path / folder, "_names.py", f"NAME = {name!r}")
        text = TEMPLATE.replace("{name!r}", "NAME")
        write(tmp_path / folder, "model.py", "from _names import NAME\n" + text)
    assert list(load_models([tmp_path / "one", tmp_path / "two"])) == ["first", "second"]
    assert "_names" not in sys.modules
    assert str(tmp_path / "one") not in sys.path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef build(:\n", ":2: syntax error: invalid syntax"),
        ("x = 1\n\nx.nothing\n", ":3: AttributeError: 'int' object has no attribute 'nothing'"),
        ("import no_such_module\n", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)\n", ":1: SystemExit: 3"),
        ("x = 1\n", ": no MODEL, expected MODEL = StreamingModel(...)"),
        ("MODEL = 1\n", ": MODEL is a int, expected MODEL = StreamingModel(...)"),
        (
            "from espdl_hil import StreamingModel\n\nMODEL = StreamingModel(\n    name='m',"
            " build=print, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(5,))\n",
            ":3: model 'm': a chunk of 5 frames does not divide the 12 frames of the input",
        ),
        (
            "from espdl_hil import StreamingModel\nMODEL = StreamingModel(name='m')\n",
            ":2: model 'm': build is not a function that returns the module, and neither onnx",
        ),
    ],
)
def test_a_file_that_does_not_load_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "model.py", text)
    with pytest.raises(ConfigError) as raised:
        load_model(path)
    assert str(raised.value).startswith(f"{path}{message}")
    assert raised.value.__cause__ is None  # no traceback of the harness


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model file or folder"):
        load_models([tmp_path / "nothing.py"])


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model files"):
        load_models([tmp_path])


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a model file is named \*\.py"):
        load_models([write(tmp_path, "model.txt")])


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.py"), write(tmp_path, "b.py")
    with pytest.raises(ConfigError) as raised:
        load_models([first, second])
    assert str(raised.value).startswith(f"two models are named 'm': {first} and {second}")


def test_the_public_name_costs_neither_torch_nor_numpy() -> None:
    check = "import sys, espdl_hil; print(sorted({'torch', 'esp_ppq', 'numpy'} & set(sys.modules)))"
    command = [sys.executable, "-c", f"{check}; espdl_hil.StreamingModel"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
