"""What is drawn says where a difference is, is bounded, and adds up."""

from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.compare import EXACT, compare_streams
from espdl_hil.proof.comparison import Comparison
from espdl_hil.proof.pictures import MAX_CHANNELS, MAX_COLUMNS, MAX_FRAMES, draw
from espdl_hil.report import unpack
from espdl_hil.report.picture_schema import picture_faults


def picture(
    spoil=lambda observed: None, *, chunks=8, channels=5, skip=0, dtype=np.int8, streaming=True
):
    rng = np.random.default_rng(0)
    expected = [{"y": rng.integers(-90, 90, (1, 3, channels)).astype(dtype)} for _ in range(chunks)]
    observed = [{"y": chunk["y"].copy()} for chunk in expected]
    spoil(observed)
    alignment = SimpleNamespace(output="y", out_frames_per_chunk=3, warmup_frames=2, state_input="")
    case = SimpleNamespace(
        skip_frames={"y": skip},
        frame_axes={"y": 1},
        axes=lambda _: {"y": 1},
        plan=SimpleNamespace(alignments=(alignment,)),
    )
    verdict = compare_streams(expected, observed, frame_axes={"y": 1}, skip_frames={"y": skip})
    against = "offline" if streaming else "interpreter"
    (found,) = draw(
        Comparison("what", streaming, expected, observed, verdict, EXACT, against), case
    )
    drawn = {"check": "streaming", "part": "stream", **found}
    whole = {"comparisons": [drawn], "budget": [], "layers": [], "latency_us": None}
    assert picture_faults({"pictures": whole}, "simulated") == []
    return found


def one_step(chunk, frame, channel, by=1):
    def spoil(observed):
        observed[chunk]["y"][0, frame, channel] += by

    return spoil


def test_one_step_is_one_cell_one_bar_and_one_place():
    found = picture(one_step(4, 1, 3, by=-2))
    heat = unpack(found["heat"])
    assert [tuple(map(int, cell)) for cell in np.argwhere(heat)] == [(4, 3)]
    assert heat[4, 3] == 2
    assert found["first"]["column"] == 4
    assert (found["first"]["frame"], found["first"]["channel"]) == (13, 3)
    assert found["first"]["observed"] == found["first"]["expected"] - 2
    assert found["worst"] == {"column": 4, "channel": 3, "size": 2}
    assert found["histogram"] == {"first": -2, "step": 1, "counts": [1]}
    (wave,) = found["waves"]  # the other channels have nothing to show
    assert wave["channel"] == 3
    assert np.flatnonzero(unpack(wave["difference"])).tolist() == [13]


def test_a_histogram_counts_what_differs_and_nothing_else():
    def spoil(observed):
        for chunk, off in enumerate((25, -1, 1, -25)):
            observed[chunk]["y"][0, 1, 2] += off

    found = picture(spoil)["histogram"]
    assert (found["first"], found["step"]) == (-25, 2)
    assert sum(found["counts"]) == 4  # and not the 116 equal elements that share a bin with -1


def test_equal_runs_draw_the_liveliest_channels_and_no_histogram():
    found = picture()
    assert not unpack(found["heat"]).any()
    assert (found["first"], found["worst"], found["histogram"]) == (None, None, None)
    assert len(found["waves"]) == 3
    assert not any(unpack(wave["difference"]).any() for wave in found["waves"])


def test_skipped_frames_are_in_no_picture():
    found = picture(one_step(0, 1, 0), skip=2)
    assert found["first"] is None
    assert found["elements"] == 8 * 3 * 5 - 2 * 5


def test_a_chunk_that_cannot_be_compared_is_marked_and_the_others_are_drawn():
    def spoil(observed):
        observed[2].pop("y")
        observed[5]["y"] = observed[5]["y"][:, :2]
        one_step(6, 0, 1)(observed)

    found = picture(spoil)
    assert found["broken"] == [2, 5]
    assert found["first"]["column"] == 6


def test_a_whole_run_has_a_column_a_frame():
    found = picture(one_step(4, 1, 3), streaming=False)
    assert (found["columns"], found["chunk_frames"]) == ("frame", 0)
    assert found["worst"] == {"column": 13, "channel": 3, "size": 1}


def test_pictures_of_a_long_wide_stream_are_bounded_and_keep_the_one_step():
    found = picture(one_step(1500, 2, 130), chunks=2000, channels=200)
    assert found["shape"] == [2000, 200]
    assert found["bin"] == [4, 4]
    heat = unpack(found["heat"])
    assert heat.shape[0] <= MAX_COLUMNS
    assert heat.shape[1] <= MAX_CHANNELS
    assert [tuple(map(int, cell)) for cell in np.argwhere(heat)] == [(375, 32)]
    (wave,) = found["waves"]
    difference = unpack(wave["difference"])
    assert len(difference) == MAX_FRAMES
    assert (
        wave["first_frame"] + int(np.flatnonzero(difference)[0]) == found["first"]["frame"] == 4502
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_that_is_not_finite_breaks_no_picture(value):
    def spoil(observed):
        observed[3]["y"][0, 0, 2] = value
        observed[5]["y"][0, 0, 1] += 0.5

    found = picture(spoil, dtype=np.float32)
    assert found["unit"] == ""
    assert (found["first"]["column"], found["first"]["channel"]) == (3, 2)
    assert found["worst"]["column"] == 3


def test_a_proof_draws_its_stream_its_layers_and_a_budget_that_adds_up(proof, book, case):
    proof.verify()
    row = book.row(case)
    pictures = row.details.pictures
    assert picture_faults(row.to_json()["details"], row.substrate) == []
    assert [(p["check"], p["part"]) for p in pictures["comparisons"]] == [("streaming", "stream")]
    (budget,) = pictures["budget"]
    assert budget["device"] == budget["streaming"] == 0
    assert budget["total"] == pytest.approx(budget["quantization"])
    decibels = 10 * np.log10(budget["signal"] / budget["total"])
    assert decibels == pytest.approx(row.sqnr_db, abs=1.5)  # here without the warm-up
    layers = pictures["layers"]
    assert layers[0]["operator"] == "Input"
    assert [layer["keeps"] for layer in layers if layer["operator"] == "StreamingCache"] == [2]
    assert layers[-1]["output"]
    assert all(number < place for place, layer in enumerate(layers) for number in layer["inputs"])
    assert sum(layer["changes_db"] is not None for layer in layers) >= 4


def test_what_breaks_the_form_is_named():
    good = {"comparisons": [], "budget": [], "layers": [], "latency_us": None}
    assert picture_faults({"pictures": good}, "simulated") == []
    assert picture_faults({"pictures": {}}, "simulated") == []
    cases = {
        "comparisons breaks its form": {**good, "comparisons": [{"check": "streaming"}]},
        "layers breaks its form": {**good, "layers": None},
        "has latencies": {**good, "latency_us": [3.0]},
        "of y does not add up": {
            **good,
            "budget": [
                {"output": "y", "unit": "LSB", "signal": 9.0, "total": 3.0, "quantization": 1.0}
                | dict.fromkeys(("device", "streaming", "together"), 0.0)
            ],
        },
    }
    for text, pictures in cases.items():
        (fault,) = picture_faults({"pictures": pictures}, "simulated")
        assert text in fault
