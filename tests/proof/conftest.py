"""One small model on one simulated devkit, without pytest's plugin."""

from __future__ import annotations

import contextlib

import pytest

from espdl_hil.proof.case import make_cases
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.settings import Settings

MODEL = """
from espdl_hil import StreamingModel

def build():
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pad = nn.Conv1d(4, 16, 1), nn.ConstantPad1d((2, 0), 0.0)
            self.conv, self.last = nn.Conv1d(16, 16, 3), nn.Conv1d(16, 4, 1)

        def forward(self, x):
            x = torch.sigmoid(self.first(x))
            return self.last(x + torch.relu(self.conv(self.pad(x))))

    return Residual()

MODEL = StreamingModel(
    name="residual", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,),
    targets=("esp32s3",),
)
"""


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("models") / "residual.py"
    file.write_text(MODEL)
    return file


@pytest.fixture(scope="session")
def rig(model_file, tmp_path_factory):
    """Artifacts and a booted devkit, for all tests."""
    settings = Settings(report=tmp_path_factory.mktemp("report"))
    with contextlib.closing(Rig(settings, make_cases([model_file], ["esp32s3"]))) as made:
        made.find_ports()
        made.build()
        made.prepare()
        made.bring_up()
        yield made


@pytest.fixture
def book(rig):
    """A row of its own for each test, and a devkit that is well."""
    yield RowBook(rig, command="pytest")
    rig.devkits["esp32s3"].clear()


@pytest.fixture
def case(rig):
    return rig.cases[0]


@pytest.fixture
def proof(case, book):
    return Hil(case, book)
