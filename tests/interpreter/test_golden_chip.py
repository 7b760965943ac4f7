"""Golden vectors of the chips' vector kernels, at every node: 0 LSB."""

from __future__ import annotations

from pathlib import Path

import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.operators import check_graph
from espdl_hil.targets import TARGETS

from .test_golden import run

FOLDER = Path(__file__).parents[1] / "golden_chip"
CASES = sorted(path.name.removesuffix(".npz") for path in FOLDER.glob("*.npz"))
# what the C kernels compute alike
CONTROLS = {
    "mul_short_rows.esp32p4.int16",
    "mul_short_rows.esp32s3.int16",
    "mul_wide_bcast.esp32p4.int16",
    "requant_16to8_left3.esp32s3.int8",
    "requant_left6.esp32s3.int8",
}
FLAWED = {"requant_left7.esp32s3.int8": "the chip's shift to the left wraps"}


def test_all_the_cases_are_here():
    assert len(CASES) == 23


@pytest.mark.parametrize("name", CASES)
def test_golden_chip(golden_chip, name):
    # the vector of the LSTM lists one of its three outputs as the graph's
    partial = name.startswith("lstm")
    differences, elements = run(*golden_chip(name), tolerance_lsb=0, partial_outputs=partial)
    assert elements > 0
    assert not differences


@pytest.mark.parametrize("name", CASES)
def test_only_what_the_chip_gets_wrong_is_refused(golden_chip, name):
    model, index, _ = golden_chip(name)
    if name not in FLAWED:
        check_graph(load_graph(model), index["target"])
        return
    with pytest.raises(UnsupportedOpError, match=FLAWED[name]):
        check_graph(load_graph(model), index["target"])


@pytest.mark.parametrize("name", CASES)
def test_the_c_kernels_differ(golden_chip, monkeypatch, name):
    """The twin: with the portable arithmetic each vector but a control fails."""
    model, index, arrays = golden_chip(name)
    chip = TARGETS[index["target"]]
    monkeypatch.setattr(type(chip), "simd", False)
    if name.startswith("prelu_rescale"):
        with pytest.raises(UnsupportedOpError, match="copies what is not negative"):
            run(model, index, arrays)
        return
    differences, _ = run(model, index, arrays, tolerance_lsb=0, partial_outputs=True)
    assert bool(differences) == (name not in CONTROLS)
