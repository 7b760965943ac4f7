"""Every rule's example is run: the first form breaks that rule alone, every edit mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rule_examples import model_text

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.model import load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.quantize.float_faults import EDITS
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
}
# By operator: what ESP-DL lacks or does not take so, and each edit that the refusal suggests.
_CONV = "conv = nn.Conv1d(4, 8, 1)\n"
_TWO = _CONV + "other = nn.Conv1d(4, 8, 1)\na, b = conv(x), other(x)\n"
_SLOPES = _CONV + "act = nn.PReLU(8)\n"
_WORDS = (
    "StreamingModel(input_shape=(1, 24{}), frame_axis=1, stimulus=lambda generator: "
    "__import__('numpy').{}.astype('float32'))"
)
_INDICES, _ONE_HOT = "arange(24).reshape(1, 24).clip(0, 15)", "eye(24, 16)[None]"
OPERATORS = {
    "Abs": (
        _CONV + "return conv(x).abs()",
        _CONV + "y = conv(x)\nreturn F.relu(y) + F.relu(-y)",
    ),
    "Cast": (
        "table = nn.Embedding(16, 8)\nreturn table(x.long())\n" + _WORDS.format("", _INDICES),
        "linear = nn.Linear(16, 8, bias=False)\nreturn linear(x)\n"
        + _WORDS.format(", 16", _ONE_HOT),
    ),
    "CumSum": (
        _CONV + "return conv(x).cumsum(2)",
        _CONV + "return F.avg_pool1d(F.pad(conv(x), (7, 0)), 8, 1)",
    ),
    "Einsum": (
        _CONV + 'linear = nn.Linear(8, 5)\nreturn torch.einsum("bct,dc->bdt", conv(x), '
        "linear.weight)",
        _CONV + "linear = nn.Linear(8, 5)\nreturn linear(conv(x).transpose(1, 2))",
        _CONV + "head = nn.Conv1d(8, 5, 1)\nreturn head(conv(x))",
    ),
    "Erf": (EXAMPLES["S114"].before, *EXAMPLES["S114"].after),
    "Max": (_TWO + "return torch.maximum(a, b)", _TWO + "return a + F.relu(b - a)"),
    "Min": (_TWO + "return torch.minimum(a, b)", _TWO + "return a - F.relu(a - b)"),
    "PRelu": (
        _SLOPES + "return act(conv(x))",
        _SLOPES + "y = conv(x)\nreturn F.relu(y) - act.weight.reshape(8, 1) * F.relu(-y)",
        _CONV + "act = nn.LeakyReLU(0.25)\nreturn act(conv(x))",
    ),
    "Selu": (_CONV + "return F.selu(conv(x))", _CONV + "return F.elu(conv(x))"),
    "Softplus": (
        _CONV + "return F.mish(F.softplus(conv(x)))",
        _CONV + "return F.silu(F.elu(conv(x)) + 1)",
        _CONV + "return F.silu(F.relu(conv(x)))",
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
    return Recipe.of(load_model(path), "esp32s3", 8)


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
