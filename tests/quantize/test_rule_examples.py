"""Every rule's example is run: the first form breaks that rule alone, every edit mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rule_examples import model_text

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.model import load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.quantize.edits import EDITS
from espdl_hil.streaming import RULES, Severity
from espdl_hil.streaming.examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # exports some hundred files

# What no model file leads to, where tests/streaming makes files of these texts, and what is found
# behind the worker.
BY_HAND = {
    "S131": "test_planner.py::test_recurrence_is_refused_by_rule_and_node",
    "S212": "test_lint.py::test_history_that_earlier_layers_computed_from_zeros",
    "S214": "test_exporter_faults.py, embedded values",
    "S305": "tests/proof/test_chip_made.py",
    "S405": "tests/proof/test_shown.py",
}
# By operator: what ESP-DL lacks or does not take so, and each edit that the refusal suggests.
_CONV = "conv = nn.Conv1d(4, 8, 1)\n"
_TWO = _CONV + "other = nn.Conv1d(4, 8, 1)\na, b = conv(x), other(x)\n"
_WORDS = (
    "StreamingModel(input_shape=(1, 24{}), frame_axis=1, stimulus=lambda generator: "
    "__import__('numpy').{}.astype('float32'))"
)
_INDICES, _ONE_HOT = "arange(24).reshape(1, 24).clip(0, 15)", "eye(24, 16)[None]"
_STATE = 'StreamingModel(input_shape={"x": (1, 4, 24), "h": (1, 1, 8)}, frame_axis={"x": 2}, '
_TWO_STATES = _STATE.replace('"h": (1, 1, 8)', '"h": (1, 1, {}), "c": (1, 1, 8)')
_FED = 'outputs=("y", "hn"), state={"h": "hn"})'
_BOTH_FED = 'outputs=("y", "hn", "cn"), state={"h": "hn", "c": "cn"})'
_LSTM = "y, (hn, cn) = lstm(x.transpose(1, 2), (h, c))\n"
_ONE = "conv = nn.Conv1d(4, 1, 1)\ny = conv(x)\nreturn y / (1 + y.abs())\n"
_WIDE = "\nStreamingModel(bits=(16,))"
_PARTS = _CONV + "a = conv(x).transpose(1, 2).unflatten(2, (2, 4))\nb = a.transpose(2, 3)\n"
OPERATORS = {
    "ArgMax": (_CONV + "return conv(x).argmax(1, keepdim=True).float()", _CONV + "return conv(x)"),
    "Cast": (
        "table = nn.Embedding(16, 8)\nreturn table(x.long())\n" + _WORDS.format("", _INDICES),
        "linear = nn.Linear(16, 8, bias=False)\nreturn linear(x)\n"
        + _WORDS.format(", 16", _ONE_HOT),
    ),
    "CumSum": (
        _CONV + "return conv(x).cumsum(2)",
        _CONV + "return F.avg_pool1d(F.pad(conv(x), (7, 0)), 8, 1)",
    ),
    "Div": (
        _ONE + "StreamingModel(chunk_frames=(1,))",
        _ONE + "StreamingModel(chunk_frames=(2,))",
        _ONE.replace("(4, 1, 1)", "(4, 2, 1)") + "StreamingModel(chunk_frames=(1,))",
        _ONE + "StreamingModel(chunk_frames=(1,), bits=(16,))",
    ),
    "Einsum": (
        _CONV + "heads = nn.Conv1d(8, 8, 1, groups=2)\ny = conv(x).reshape(1, 2, 4, -1)\n"
        'y = torch.einsum("bhct,hdc->bhdt", y, heads.weight.reshape(2, 4, 4))\n'
        "return y.reshape(1, 8, -1)",
        _CONV + "linear = nn.Linear(8, 5)\nreturn linear(conv(x).transpose(1, 2))",
        _CONV + "head = nn.Conv1d(8, 5, 1)\nreturn head(conv(x))",
        _CONV + "heads = nn.Conv1d(8, 8, 1, groups=2)\nreturn heads(conv(x))",
    ),
    "Erf": (EXAMPLES["S114"].before, *EXAMPLES["S114"].after),
    "Expand": (
        _CONV + "y = conv(x)\nreturn y * y.mean(1, keepdim=True).expand(-1, 8, -1)",
        _CONV + "y = conv(x)\nreturn y * y.mean(1, keepdim=True)",
    ),
    "MatMul": (
        _PARTS + "return (a @ b).flatten(2)",
        _PARTS + "return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2).flatten(2)",
    ),
    "RNN": (
        "rnn = nn.RNN(4, 8, batch_first=True)\ny, hn = rnn(x.transpose(1, 2), h)\nreturn y, hn\n"
        + _STATE
        + _FED,
        "gru = nn.GRU(4, 8, batch_first=True)\ny, hn = gru(x.transpose(1, 2), h)\nreturn y, hn\n"
        + _STATE
        + _FED,
    ),
    "Resize": (
        _CONV + 'return F.interpolate(conv(x), scale_factor=2, mode="nearest")' + _WIDE,
        "up = nn.ConvTranspose1d(4, 8, 2, stride=2)\nreturn up(x)" + _WIDE,
        _CONV + "return conv(x).repeat_interleave(2, 2)" + _WIDE,
    ),
    "Round": (_CONV + "return torch.round(conv(x) * 4) / 4", _CONV + "return conv(x)"),
    "Sign": (_CONV + "return torch.sign(conv(x))", _CONV + "return torch.tanh(9 * conv(x))"),
    "Sin": (
        _CONV + "return torch.sin(conv(x))",
        _CONV + "return torch.tanh(conv(x))",
        _CONV + "return F.silu(conv(x))",
    ),
    "TopK": (
        _CONV + "return torch.topk(conv(x), 1, dim=1).values",
        _CONV + "return conv(x).amax(1, keepdim=True)",
    ),
    "Where": (
        _CONV + "y = conv(x)\nreturn torch.where(y > 0.1, y, 0.5 * y)",
        _CONV + "y = conv(x)\nreturn 0.5 * y + 0.5 * F.relu(y - 0.1)",
        _CONV + "y = conv(x)\nreturn torch.clamp(y, -0.2, 0.1)",
        _CONV + "y = conv(x)\nreturn y * torch.clamp(99 * (y - 0.1), 0, 1)",
        _CONV + "return conv(x) * torch.tensor([1.0, 0.0] * 4).reshape(8, 1)",
    ),
    "fft": (
        "return torch.fft.rfft(x, dim=1).abs()",
        "conv = nn.Conv1d(4, 6, 1, bias=False)\nre, im = conv(x).chunk(2, 1)\n"
        "return re * re + im * im",
    ),
    "complex": (
        _TWO + "return torch.view_as_real(torch.complex(a, b)).sum(-1)",
        _TWO + "return torch.cat([a, b], 1)",
    ),
    "projections": (
        "lstm = nn.LSTM(4, 8, batch_first=True, proj_size=4)\n"
        + _LSTM
        + "return y, hn, cn\n"
        + _TWO_STATES.replace("{}", "4")
        + _BOTH_FED,
        "lstm = nn.LSTM(4, 8, batch_first=True)\nlinear = nn.Linear(8, 4)\n"
        + _LSTM
        + "return linear(y), hn, cn\n"
        + _TWO_STATES.replace("{}", "8")
        + _BOTH_FED,
    ),
    "script": (
        _CONV + "return torch.jit.script(nn.Tanh())(conv(x))",
        _CONV + "return nn.Tanh()(conv(x))",
    ),
    "threshold": (
        _CONV + "return F.threshold(conv(x), 0.1, 0.0)",
        _CONV + "return F.relu(conv(x) - 0.1)",
        _CONV + "return torch.clamp(conv(x), 0.1, 1)",
    ),
}
MODELS = [rule for rule in EXAMPLES if rule not in BY_HAND]
AFTER = [(rule, n) for rule in (*MODELS, "S131") for n in range(len(EXAMPLES[rule].after))]


def test_every_rule_has_an_example_with_an_edit() -> None:
    assert list(EXAMPLES) == list(RULES)
    assert all(example.after for example in EXAMPLES.values())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    forms = {f"{rule}_before": EXAMPLES[rule].before for rule in MODELS}
    forms |= {f"{rule}_after{n}": EXAMPLES[rule].after[n] for rule, n in AFTER}
    made = {name: _recipe(folder, name, form) for name, form in forms.items()}
    for operator, (before, *after) in OPERATORS.items():
        forms = {f"{operator}_{n}": form for n, form in enumerate((before, *after))}
        made |= {name: _recipe(folder, name, form) for name, form in forms.items()}
    found = prepare(list(made.values()), Store(folder / "store"), jobs=2)
    return {name: found[recipe.key] for name, recipe in made.items()}


def _recipe(folder: Path, name: str, form: str) -> Recipe:
    path = folder / f"{name}.py"
    path.write_text(model_text(form, name))
    model = load_model(path)
    return Recipe.of(model, "esp32s3", model.bits[0])


def _said(result: Artifacts | HarnessError) -> tuple[set[str], set[str]]:
    """The rules that are named, and those of them that are errors."""
    if isinstance(result, StreamingError):
        named = {fault.rule for fault in result.every}
        return named, named
    assert isinstance(result, Artifacts), result
    findings = [finding for found in result.lint.values() for finding in found]
    errors = {finding.rule for finding in findings if finding.severity is Severity.ERROR}
    return {finding.rule for finding in findings}, errors


@pytest.mark.parametrize("rule", MODELS)
def test_the_first_form_breaks_the_rule(results: dict[str, Any], rule: str) -> None:
    named, errors = _said(results[f"{rule}_before"])
    assert rule in named
    if not rule.startswith("S2"):  # one wrong conversion may be wrong in several ways
        assert errors <= {rule}


@pytest.mark.parametrize(("rule", "edit"), AFTER)
def test_each_edit_mends_it(results: dict[str, Any], rule: str, edit: int) -> None:
    named, errors = _said(results[f"{rule}_after{edit}"])
    assert not errors
    assert rule not in named


@pytest.mark.parametrize("rule", [rule for rule in MODELS if rule < "S2"])
def test_a_refusal_names_what_its_author_wrote(results: dict[str, Any], rule: str) -> None:
    text = str(results[f"{rule}_before"])
    assert "PPQ_" not in text
    assert " /" not in text
    assert "_output_0" not in text


def test_every_operator_with_an_edit_has_an_example() -> None:
    assert list(OPERATORS) == list(EDITS)


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_edit_for_an_operator_mends_it(results: dict[str, Any], operator: str) -> None:
    refusal = results[f"{operator}_0"]
    assert isinstance(refusal, StreamingError)
    assert {fault.rule for fault in refusal.every} == {"S114"}
    assert EDITS[operator] in {fault.hint for fault in refusal.every}
    for n in range(1, len(OPERATORS[operator])):
        assert isinstance(results[f"{operator}_{n}"], Artifacts), results[f"{operator}_{n}"]
