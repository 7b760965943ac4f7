"""The content key: what it covers, and what it must not."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import TYPE_CHECKING, Any

import pytest

from espdl_hil import Quantization, StreamingModel
from espdl_hil.errors import ConfigError
from espdl_hil.model import load_model
from espdl_hil.quantize import Recipe
from espdl_hil.quantize import recipe as recipe_module

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """
from espdl_hil import StreamingModel
MODEL = StreamingModel(
    name="m", build=print, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3, 4), bits=(8, 16)
)
"""


def recipe(folder: Path, text: str = MODEL, **changes: Any) -> Recipe:
    folder.mkdir(exist_ok=True)
    (folder / "m.py").write_text(text)
    return Recipe.of(dataclasses.replace(load_model(folder / "m.py"), **changes), "esp32s3", 8)


def test_the_key_does_not_depend_on_where_the_file_lies(tmp_path: Path) -> None:
    here, there = recipe(tmp_path / "here"), recipe(tmp_path / "there")
    assert here.key == there.key
    assert here.source != there.source


@pytest.mark.parametrize(
    "change",
    [
        {"target": "esp32p4"},
        {"bits": 16},
        {"chunk_frames": (3,)},
        {"streaming": "auto"},
        {"seed": 1},
        {"source_sha256": "0"},
        {"quantization": Quantization(equalization=True)},
        {"quantization": Quantization(layer_bits={"conv": 16})},
        {"environment": (("esp-ppq", "0"),)},
    ],
)
def test_the_key_covers_what_shapes_the_artifact(tmp_path: Path, change: dict[str, Any]) -> None:
    before = recipe(tmp_path)
    assert dataclasses.replace(before, **change).key != before.key


def test_the_key_covers_the_file_and_what_was_replaced_since(tmp_path: Path) -> None:
    keys = [
        recipe(tmp_path).key,
        recipe(tmp_path, MODEL + "# edited\n").key,
        recipe(tmp_path, seed=7).key,
        recipe(tmp_path, streaming="auto").key,
        recipe(tmp_path, streaming=[print]).key,
        recipe(tmp_path, quantization=Quantization(algorithm="mse")).key,
    ]
    assert len(set(keys)) == len(keys)


def test_settings_share_a_trace_unless_they_ask_for_other_batches(tmp_path: Path) -> None:
    plain = recipe(tmp_path).trace
    assert recipe(tmp_path, quantization=Quantization(algorithm="mse")).trace.key == plain.key
    assert recipe(tmp_path, quantization=Quantization(batches=9)).trace.key != plain.key


def test_the_environment_names_the_exporter_and_the_planner(tmp_path: Path) -> None:
    environment = dict(recipe(tmp_path).environment)
    assert environment["esp-ppq"] == importlib.metadata.version("esp-ppq")
    assert len(environment["harness"]) == 64
    patterns = " ".join(recipe_module._SOURCES)
    assert all(any(recipe_module._HARNESS.glob(pattern)) for pattern in patterns.split())


def test_a_model_without_a_file_has_no_recipe() -> None:
    model = StreamingModel("m", print, (1, 4, 12), 2, (3,))
    with pytest.raises(ConfigError, match="model 'm' has no source file"):
        Recipe.of(model, "esp32s3", 8)


def test_a_missing_exporter_is_the_users_to_install() -> None:
    with pytest.raises(ConfigError, match="no-such-distribution is not installed"):
        recipe_module._environment(("no-such-distribution",), ())


def test_all_targets_widths_and_chunk_sizes_start_from_one_trace(tmp_path: Path) -> None:
    before = recipe(tmp_path)
    for change in ({"target": "esp32p4"}, {"bits": 16}, {"chunk_frames": (3,)}):
        assert dataclasses.replace(before, **change).trace == before.trace
    assert before.trace.key != before.key
    assert recipe(tmp_path, streaming="auto").trace.key == before.trace.key


def test_another_seed_or_file_is_another_trace(tmp_path: Path) -> None:
    recipes = [recipe(tmp_path), recipe(tmp_path, seed=7), recipe(tmp_path, MODEL + "# edited\n")]
    assert len({made.trace.key for made in recipes}) == 3
