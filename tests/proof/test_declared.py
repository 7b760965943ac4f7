"""What the quantize worker would run is the object that was given, or is refused by its field."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from espdl_hil.model import Quantization, StreamingModel, load_model
from espdl_hil.proof.declared import find_differences

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
import functools
import numpy as np
from espdl_hil import StreamingModel

class Maker:
    def __init__(self, width, after=None):
        self.width, self.after = width, after or self

    def __call__(self):
        return self.width

    def make(self):
        return self.after

class Wide:
    def forward(self, x):
        return x

class Narrow:
    def forward(self, x):
        return -x

def closure(value):
    return lambda random=None: value

def build(): return 1

def again(): return 1

def quiet(random=None):
    return np.zeros((1, 4, 12))

def loud(random=None):
    return np.ones((1, 4, 12))

def declare(**fields):
    given = dict(name="mine", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,))
    return StreamingModel(**{**given, **fields})

MODEL = declare(%s)
"""
# What the file declares, and what is another.
OTHERS = {
    "function": ("build=build", "build=again"),
    "closure": ("build=closure(3)", "build=closure(4)"),
    "array": ("build=closure(np.arange(3))", "build=closure(np.arange(4))"),
    "nested": ("build=closure([(1, {'a': build})])", "build=closure([(1, {'a': again})])"),
    "default": ("build=lambda width=3: width", "build=lambda width=4: width"),
    "partial": ("build=functools.partial(build, 3)", "build=functools.partial(build, 4)"),
    "keyword": ("build=functools.partial(build, a=3)", "build=functools.partial(build, a=4)"),
    "class": ("build=Wide", "build=Narrow"),
    "object": ("build=Maker(3)", "build=Maker(4)"),
    "method": ("build=Maker(3, np.int64(1)).make", "build=Maker(3, np.int64(2)).make"),
    "cached": ("build=functools.cache(build)", "build=functools.cache(again)"),
    "set": ("build=closure({1, 2})", "build=closure({1, 3})"),
    "stimulus": ("stimulus=quiet", "stimulus=loud"),
    "no stimulus": ("", "stimulus=loud"),
    "calibration": ("calibration=quiet", ""),
    "streaming": ("streaming=[quiet, {'a': 1}]", "streaming=[quiet, {'a': 2}]"),
    "streaming of the file": ("", "streaming=quiet"),
    "onnx": ("build=None, onnx='one.onnx'", "build=None, onnx='two.onnx'"),
    "offline": (
        "build=None, offline='one.espdl', streaming={3: 'a.espdl'}",
        "build=None, offline='two.espdl', streaming={3: 'a.espdl'}",
    ),
    "streaming files": (
        "build=None, offline='one.espdl', streaming={3: 'a.espdl'}",
        "build=None, offline='one.espdl', streaming={3: 'b.espdl'}",
    ),
    "name": ("", "name='other'"),
    "input_shape": ("", "input_shape=(1, 4, 24)"),
    "outputs": ("", "outputs=('y',)"),
    "ragged": ("", "ragged='flush'"),
}


@pytest.fixture(autouse=True)
def _no_compiled_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts of one length in one second would be taken for the same."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def load(folder: Path, fields: str) -> StreamingModel:
    file = folder / "mine.py"
    file.write_text(FILE % fields)
    return load_model(file)


@pytest.mark.parametrize("name", OTHERS)
def test_another_is_told_by_its_field_and_the_same_loaded_again_is_not(
    tmp_path: Path, name: str
) -> None:
    declared, other = OTHERS[name]
    model = load(tmp_path, declared)
    assert list(find_differences(load(tmp_path, declared), model)) == []
    found = list(find_differences(load(tmp_path, other), model))
    field = name.partition(" of ")[0].partition(" files")[0].removeprefix("no ")
    assert found == [field if field in StreamingModel.__dataclass_fields__ else "build"]


def test_the_same_text_in_another_file_is_another_function(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    model, other = load(tmp_path, ""), load(tmp_path / "other", "")
    assert list(find_differences(other, model)) == ["build"]


PASSED_ALONG: list[dict[str, Any]] = [
    {"bits": (16,)},
    {"chunk_frames": (4, 6)},
    {"tolerance": 1, "min_sqnr_db": 5, "chip_rounding": "accept", "frame_seconds": 0.01},
    {"seed": 1},
    {"quantization": Quantization("minmax")},
    {"streaming": "auto"},
    {"targets": ("esp32p4",)},
    {"metric": functools.partial(np.mean)},
]


@pytest.mark.parametrize("changes", PASSED_ALONG, ids=lambda changes: next(iter(changes)))
def test_what_the_recipe_or_this_process_takes_may_be_replaced(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = load(tmp_path, "")
    assert list(find_differences(replace(model, **changes), model)) == []


def test_a_conversion_by_name_replaces_that_of_the_file(tmp_path: Path) -> None:
    model = load(tmp_path, "streaming=quiet")
    assert list(find_differences(replace(model, streaming="plan"), model)) == []
