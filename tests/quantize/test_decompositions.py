"""What ESP-DL has no operator for is written with those that it has, and computes the same."""

from __future__ import annotations

import pytest
from written_models import network, prepared

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.quantize import Artifacts

CONV = "nn.Conv1d(4, 4, 3)"
POINT = "nn.Conv1d(4, 4, 1)"
Y = "y, z = self.a(F.pad(x, (2, 0))), self.b(x)"
# Each gives one output (1, 4, 12).
ACTIVATIONS = (
    "y.abs() + abs(z)",
    "torch.maximum(y, z) - torch.min(z, y)",
    "F.softplus(y) + F.softplus(z, 2)",
    "F.mish(y)",
    "F.selu(y) + F.celu(z, 0.5)",
    "F.softsign(y)",
    "F.softshrink(y, 0.1)",
    "self.one(y) + self.four(z)",
    "1 / (1 + y * y) + (2 + z * z).reciprocal()",
    "torch.lerp(y, z, 0.25)",
    "y**2 + z.pow(3) - torch.pow(z, 4)",
)
AXES = (
    "y.flip(1) + torch.flip(z, (1,))",
    "self.rms(y.mT).mT",
    "self.matrix @ y",
    "y[:, :1].repeat(1, 4, 1) * z",
    "F.pad(y, (2, 0)).unfold(2, 3, 1).sum(-1)",
    "F.avg_pool1d(y.repeat_interleave(3, 2), 3, 3)",
    "F.adaptive_avg_pool2d(y.unsqueeze(1), (2, None)).squeeze(1).repeat(1, 2, 1)",
    "self.group(y.transpose(1, 2).reshape(-1, 4, 1)).reshape(1, -1, 4).transpose(1, 2)",
    "self.across(y.transpose(1, 2).reshape(-1, 1, 4)).reshape(1, -1, 4).transpose(1, 2)",
    "y * torch.vdot(self.a.bias, self.b.bias)",
    'torch.einsum("bct,cd->bdt", y, self.matrix)',
    'torch.einsum("oc,bct->bto", self.matrix, z).mT',
    "self.instance(y)",
    "self.a(torch.cat([torch.zeros(1, 4, 2), z], 2))",
    "torch.cat((y[:, :3], z.new_zeros(1, 1, z.shape[2])), 1)",
    "torch.cat([torch.zeros(0), z], 2)",  # which torch takes as nothing
)
# What a wrong entry of the table would do.
WRONG = """
import sys
if "torch" in sys.modules and "espdl_hil.quantize.decompositions" in sys.modules:
    from espdl_hil.quantize.decompositions import DECOMPOSITIONS
    import torch
    DECOMPOSITIONS[torch.abs] = lambda x: x
"""


def model(outputs: tuple[str, ...], **layers: str) -> str:
    names = tuple(f"y{n}" for n in range(len(outputs)))
    return network(
        [Y, f"return {', '.join(outputs)}"],
        declared=f", outputs={names}, chunk_frames=(1, 3)",
        a=CONV,
        b=POINT,
        **layers,
    )


MODELS = {
    "activations": model(ACTIVATIONS, one="nn.PReLU()", four="nn.PReLU(4)"),
    "axes": model(
        AXES,
        rms="nn.RMSNorm(4)",
        group="nn.GroupNorm(2, 4)",
        matrix="nn.Parameter(torch.randn(4, 4))",
        across="nn.Conv1d(1, 1, 3, padding=1)",
        instance="nn.InstanceNorm1d(4, affine=True, track_running_stats=True)",
    ),
    "written": network(
        ["z = torch.zeros(1, 4, 2)", "z[:, :, 1] = 1.0", "return self.a(torch.cat([z, x], 2))"],
        a=CONV,
    ),
    "right": network(["return torch.abs(self.a(x))"], a=POINT),
    "wrong": network(["return torch.abs(self.a(x))"], a=POINT) + WRONG,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    return prepared(tmp_path_factory.mktemp("decomposed"), MODELS)


@pytest.mark.parametrize("name", ["activations", "axes", "right"])
def test_it_is_neither_refused_nor_changed(
    results: dict[str, Artifacts | HarnessError], name: str
) -> None:
    made = results[f"{name} int8 esp32s3"]
    assert isinstance(made, Artifacts), made
    assert not [f for found in made.lint.values() for f in found if f.rule < "S3"]


def test_a_wrong_decomposition_is_noticed(results: dict[str, Artifacts | HarnessError]) -> None:
    error = results["wrong int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert "of the trace differs by up to" in error.message


def test_zeros_that_were_written_into_are_no_padding(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    error = results["written int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert error.rule == "S110"
