"""A cell in a loop over frames is refused once; the edit that is suggested computes the same."""

from __future__ import annotations

import pytest
from written_models import network, prepared

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.quantize import Artifacts
from espdl_hil.streaming import RULES

ROWS = ", input_shape={'x': (1, 12, 4), 'h': (1, 5)}, frame_axis={'x': 1}, "
FED = "outputs=('y', 'hn'), state={'h': 'hn'}"
ROWS_C = ROWS.replace("}, frame", ", 'c': (1, 5)}, frame")
FED_C = "outputs=('y', 'hn', 'cn'), state={'h': 'hn', 'c': 'cn'}"
LOOP = [
    "ys = []",
    "for t in range(x.shape[1]):",
    "    h = self.cell(x[:, t], h)",
    "    ys.append(h)",
]
UNBOUND = [
    "ys = []",
    "for frame in x.unbind(1):",
    "    h = self.cell(frame, h)",
    "    ys.append(h)",
]
LSTM_LOOP = [
    line.replace("h = self.cell(x[:, t], h)", "h, c = self.cell(x[:, t], (h, c))") for line in LOOP
]
LAST = "return torch.stack(ys, 1), h"
GRU, LSTM = "nn.GRUCell(4, 5)", "nn.LSTMCell(4, 5)"
# As the rule says it, with the layer in place of gru.
TAKEN = RULES["S117"].edit.partition("cell: ")[2].partition("; a loop")[0]


def moved(text: str, state: str) -> str:
    """A model whose layer takes over the weights of its cell, and has compared what they give."""
    made = TAKEN.replace("gru.", "self.layer.").replace("cell.", "self.cell.")
    checked = f"""
            {made}
            x, h, c = torch.randn(1, 6, 4), torch.randn(1, 5), torch.randn(1, 5)
            y = self(x, {state})[0]
            for t in range(6):
                {state} = self.cell(x[:, t], ({state}))
                assert torch.allclose(y[:, t], h, atol=1e-6)
"""
    return text.replace("\n        def forward", f"{checked}\n        def forward")


MODELS = {
    "cell": network([*LOOP, LAST], declared=ROWS + FED, cell=GRU),
    "unbound": network([*UNBOUND, LAST], declared=ROWS + FED, cell=GRU),
    "lstm_cell": network([*LSTM_LOOP, f"{LAST}, c"], declared=ROWS_C + FED_C, cell=LSTM),
    "gru": moved(
        network(
            ["y, hn = self.layer(x, h[None])", "return y, hn[0]"],
            declared=ROWS + FED,
            cell=GRU,
            layer="nn.GRU(4, 5, batch_first=True)",
        ),
        "h",
    ),
    "lstm": moved(
        network(
            ["y, (hn, cn) = self.layer(x, (h[None], c[None]))", "return y, hn[0], cn[0]"],
            declared=ROWS_C + FED_C,
            cell=LSTM,
            layer="nn.LSTM(4, 5, batch_first=True)",
        ),
        "h, c",
    ),
}

ONE = ", input_shape={'x': (1, 4, 1), 'h': SHAPE}, frame_axis={'x': 2}, chunk_frames=(1,), " + FED
MODELS |= {  # a state of convolutions, of one frame, in the module's axes and in the file's
    "moved_state": network(
        ["m = 0.9 * h + 0.1 * self.cell(x)", "return x - m, m"],
        declared=ONE.replace("SHAPE", "(1, 4, 1)"),
        cell="nn.Conv1d(4, 4, 1)",
    ),
    "state": network(
        ["m = 0.9 * h.transpose(1, 2) + 0.1 * self.cell(x)", "return x - m, m.transpose(1, 2)"],
        declared=ONE.replace("SHAPE", "(1, 1, 4)"),
        cell="nn.Conv1d(4, 4, 1)",
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    return prepared(tmp_path_factory.mktemp("cells"), MODELS)


@pytest.mark.parametrize("name", ["cell", "unbound", "lstm_cell"])
def test_a_loop_over_frames_is_one_fault(
    results: dict[str, Artifacts | HarnessError], name: str
) -> None:
    error = results[f"{name} int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert [fault.rule for fault in error.every] == ["S117"]
    assert "12 of 12 frames are taken by themselves" in error.message
    assert TAKEN in str(error.hint)


def test_a_state_that_lies_otherwise_is_refused_with_its_edit(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    error = results["moved_state int8 esp32s3"]
    assert isinstance(error, QuantizeError)
    assert "state output hn" in error.message
    assert "with state.transpose(1, 2) in forward" in str(error.hint)


@pytest.mark.parametrize("name", ["gru", "lstm", "state"])
def test_what_is_suggested_streams(results: dict[str, Artifacts | HarnessError], name: str) -> None:
    made = results[f"{name} int8 esp32s3"]
    assert isinstance(made, Artifacts), made
