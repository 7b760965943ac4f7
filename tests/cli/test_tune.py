"""``espdl-hil tune``: what it tries, what it says, and that the line it gives keeps its word."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from espdl_hil import Quantization
from espdl_hil.__main__ import main
from espdl_hil.model import load_model
from espdl_hil.proof.tune import MACS_OF_WIDE, try_recipe
from espdl_hil.quantize import Recipe, Store, prepare

MODEL = """
from espdl_hil import Quantization, StreamingModel

def build():
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.pad, self.first = nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 16, 3)
            self.last = nn.Conv1d(16, 1, 1)

        def forward(self, x):
            return self.last(torch.relu(self.first(self.pad(x))))

    return Network()

MODEL = StreamingModel(
    name="mine", build=build, input_shape=(1, 4, 24), frame_axis=2, chunk_frames=(3,),
    quantization=Quantization(),
)
"""
TRIES = 7
FIRST_MACS, LAST_MACS = 3 * (4 * 3 * 16), 3 * 16  # of a chunk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    (folder / "mine.py").write_text(MODEL)
    return folder


def tune(folder, *arguments):
    model, store = str(folder / "mine.py"), str(folder / "store")
    return main(["tune", model, "--target", "esp32p4", "--hil-store", store, *arguments])


def settings_of(data):
    return Quantization(**data["quantization"])


@pytest.fixture(scope="module")
def found(folder):
    """The tries as JSON."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert tune(folder, "--json", "--tries", str(TRIES)) == 0
    return json.loads(out.getvalue())


def test_it_tries_what_differs_and_ranks_it(found):
    tries = found["tries"]
    settings = [settings_of(each) for each in tries]
    assert 5 <= len(tries) <= TRIES
    assert len(set(settings)) == len(settings)
    assert Quantization() in settings
    assert {each.algorithm for each in settings} >= {"minmax", "mse", "percentile"}
    assert any(each.layer_bits for each in settings)
    kept = [each["sqnr_db"]["output"] for each in tries if not each["refused"]]
    assert kept == sorted(kept, reverse=True)
    assert all(each["state_bytes"] and each["file_bytes"] for each in tries if not each["refused"])


def test_the_best_costs_no_more_than_allowed(found):
    macs = {settings_of(each): each["macs"] for each in found["tries"]}
    declared = macs[Quantization()]
    assert declared == FIRST_MACS + LAST_MACS
    assert found["best"]["macs"] <= 1.1 * declared
    assert found["best"]["sqnr_db"]["output"] >= max(
        each["sqnr_db"]["output"]
        for each in found["tries"]
        if not each["refused"] and each["macs"] <= 1.1 * declared
    )
    wide = [settings for settings in macs if "last" in settings.layer_bits]
    assert wide  # an eighth of the work of 8 bits more
    assert {macs[each] for each in wide} == {declared + (MACS_OF_WIDE - 1) * LAST_MACS}
    assert not any("first" in settings.layer_bits for settings in macs)


def test_the_line_to_paste_does_what_was_measured(folder, found, capsys):
    assert tune(folder, "--tries", str(TRIES)) == 0  # all is in the store

    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].split()[:4] == ["SQNR", "dB", "MACs", "file"]
    assert sum("(as declared)" in line for line in lines) == 1
    assert "dB with, in the model file (from espdl_hil import Quantization):" in lines[-2]
    pasted = folder / "pasted.py"
    pasted.write_text(MODEL.replace("    quantization=Quantization(),", lines[-1]))
    model = load_model(pasted)
    assert model.quantization == settings_of(found["best"]) != Quantization()
    declared = load_model(folder / "mine.py")
    recipe = Recipe.of(replace(declared, quantization=model.quantization), "esp32p4", 8)
    made = prepare([recipe], Store(folder / "store"))[recipe.key]  # found: it is what was measured
    again = try_recipe(model, "esp32p4", 8, made)
    assert round(again.sqnr_db["output"], 2) == found["best"]["sqnr_db"]["output"]


def test_one_try_is_what_is_declared(folder, capsys):
    assert tune(folder, "--tries", "1") == 0
    assert capsys.readouterr().out.endswith("of 1 tries the declared settings are the best\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tries", "0"], "--tries takes 1 or more"),
        (["--more-macs", "-1"], "--more-macs 0 or more"),
    ],
)
def test_mistakes(folder, capsys, arguments, message):
    assert tune(folder, *arguments) == 2
    assert message in capsys.readouterr().err
