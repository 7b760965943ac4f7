"""Every rule's example is run: the first form breaks that rule alone, every edit mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rule_examples import model_text

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.model import load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.streaming import RULES, Severity
from espdl_hil.streaming.examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # exports some hundred files

# Files that no model file leads to, which tests/streaming makes by hand, and unmakes; and what is
# found behind the worker.
BY_HAND = {
    "S131": "test_planner.py: what is stacked takes the step of what carries it",
    "S212": "test_lint.py::test_history_that_earlier_layers_computed_from_zeros",
    "S214": "test_exporter_faults.py, embedded values",
    "S305": "tests/proof/test_chip_made.py",
}
MODELS = [rule for rule in EXAMPLES if rule not in BY_HAND]
AFTER = [(rule, n) for rule in MODELS for n in range(len(EXAMPLES[rule].after))]


def test_every_rule_has_an_example_with_an_edit() -> None:
    assert list(EXAMPLES) == list(RULES)
    assert all(example.after for example in EXAMPLES.values())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    forms = {f"{rule}_before": EXAMPLES[rule].before for rule in MODELS}
    forms |= {f"{rule}_after{n}": EXAMPLES[rule].after[n] for rule, n in AFTER}
    made = {name: _recipe(folder, name, form) for name, form in forms.items()}
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
