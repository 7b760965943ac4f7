"""Rows: models crossed with targets, widths and chunk sizes."""

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.model import StreamingModel
from espdl_hil.proof.case import cross, make_cases
from espdl_hil.proof.rows import real_time_factor

MODEL = """
from espdl_hil import StreamingModel
MODEL = StreamingModel(
    name="mine", build=lambda: None, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3, 6),
    bits=(8, 16), {}
)
"""


def write(tmp_path, more=""):
    file = tmp_path / "mine.py"
    file.write_text(MODEL.format(more))
    return file


def test_every_combination_is_a_case(tmp_path):
    cases = make_cases([write(tmp_path)], ["esp32s3", "esp32p4"])
    assert [case.id for case in cases] == [
        f"{target}-mine-int{bits}-chunk{chunk}"
        for target in ("esp32s3", "esp32p4")
        for bits in (8, 16)
        for chunk in (3, 6)
    ]
    assert [case.chunk_count for case in cases[:2]] == [4, 2]


def test_a_model_is_tested_on_the_targets_that_it_names(tmp_path):
    file = write(tmp_path, "targets=('esp32p4',)")
    assert {c.target for c in make_cases([file], ["esp32s3", "esp32p4"])} == {"esp32p4"}
    with pytest.raises(ConfigError, match="no model is for esp32s3") as error:
        make_cases([file], ["esp32s3"])
    assert error.value.hint == "the models' targets are mine: esp32p4"


def test_no_models_at_all():
    with pytest.raises(ConfigError, match="no models to test"):
        make_cases([], ["esp32s3"])


def test_a_tolerance_that_cannot_be_read_names_the_file(tmp_path):
    file = write(tmp_path, "tolerance='2 steps'")
    with pytest.raises(ConfigError, match=r"mine\.py: model 'mine': tolerance '2 steps' is not"):
        make_cases([file], ["esp32s3"])


def test_a_chunk_takes_part_of_the_time_that_its_frames_stand_for():
    def case(**rate):
        model = StreamingModel(
            name="a",
            build=lambda: None,
            input_shape=(1, 4, 12),
            frame_axis=2,
            chunk_frames=(3,),
            **rate,
        )
        return cross([model], ["esp32s3"])[0]

    assert real_time_factor(case(frame_seconds=0.01), 1500.0) == 0.05
    assert real_time_factor(case(), 1500.0) is None
    for wrong in (0, -1.0, "10 ms", True):
        with pytest.raises(ConfigError, match="frame_seconds"):
            case(frame_seconds=wrong)
