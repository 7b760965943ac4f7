"""An output that never changes is refused, a channel that never changes is found with its cause."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from written_models import network, prepared

from espdl_hil.errors import HarnessError, QuantizeError
from espdl_hil.quantize import Artifacts
from espdl_hil.quantize.alive import Output, check_alive, check_depends, check_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOVING = np.arange(12.0)


def output(*channels: Any, real: Any = None, axis: int = 1) -> Output:
    """An int8 output (1, 12, C) at exponent -4, and what the float network gives."""
    columns = [np.broadcast_to(np.asarray(c, float), 12) for c in channels]
    values = np.stack(columns, 1)[None].astype(np.int8)
    floats = [np.broadcast_to(np.asarray(c, float), 12) for c in (real or channels)]
    scale = 1.0 if real else 2.0**-4
    return Output(values, np.stack(floats, 1)[None] * scale, -4, axis)


def test_outputs_that_change_pass() -> None:
    assert check_alive({"mask": output(MOVING, -MOVING)}) == []


@pytest.mark.parametrize("dead", [output(0, 0), output(3, -5)], ids=["zero", "constants"])
def test_one_output_that_never_changes_is_refused(dead: Output) -> None:
    with pytest.raises(
        QuantizeError, match="output 'level' of the quantized network never changes"
    ):
        check_alive({"mask": output(MOVING), "level": dead})


@pytest.mark.parametrize(
    ("value", "real", "cause"),
    [
        (0, 0, "always 0 in the float network too: a dead Relu"),
        (3, 0.2, "always 0.2 in the float network too: it does not depend on the stimulus"),
        (127, MOVING + 9, "saturated at 7.9375, in float it goes from 9 to 20: the calibrated"),
        (5, MOVING * 1e-3, "in float it moves by 0.011, less than one step (0.0625)"),
        (5, MOVING, "in float it goes from 0 to 11: clipped or rounded away before"),
    ],
)
def test_a_channel_that_never_changes_has_its_cause(value: int, real: Any, cause: str) -> None:
    (finding,) = check_alive({"mask": output(MOVING, value, real=[MOVING, real])})
    assert finding.rule == "S403"
    assert f"1 of 2 channels of mask: channel 1 is {cause}" in finding.message


@pytest.mark.parametrize(
    ("value", "cause"), [(127, "saturated at 7.9375"), (5, "always at 0.3125")]
)
def test_without_a_float_network_it_is_said_where_a_channel_stays(value: int, cause: str) -> None:
    alive = replace(output(MOVING, value), real=None)
    assert f"channel 1 is {cause}" in check_alive({"mask": alive})[0].message


def test_an_output_without_frames_is_judged_as_a_whole() -> None:
    classes = np.array([[3, 5, 9]], np.int8)
    assert check_alive({"c": Output(classes, classes / 16, -4, -1)}) == []
    with pytest.raises(QuantizeError, match="output 'c' of the quantized network never changes"):
        check_alive({"c": Output(classes * 0, classes / 16, -4, -1)})


def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    x = inputs["x"].astype(int)
    return {"level": np.abs(x), "one": x > 1, "bias": np.array([[3, -5]])}


def test_an_output_that_does_not_depend_on_the_input_is_refused() -> None:
    inputs, seen = {"x": np.array([[-128, 5, 127]], np.int8)}, []
    outputs = run(inputs)

    def watched(other: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        seen.append(other["x"].tolist())
        return run(other)

    check_depends({"one": outputs["one"]}, inputs, {}, watched)
    assert seen == [[[127, -5, -127]]]
    check_depends({"level": outputs["level"][:, 1:]}, {"x": inputs["x"][:, 1:]}, {}, watched)
    assert seen[1:] == [[[-5, -127]], [[0, 0]]]
    with pytest.raises(QuantizeError, match="output 'bias' of the quantized network depends on no"):
        check_depends(outputs, inputs, {}, run)


@pytest.mark.parametrize("used", [True, False])
def test_an_input_on_which_nothing_depends_is_refused(used: bool) -> None:
    inputs = {"x": np.array([[1, 2]], np.int8), "motion": np.array([[3]], np.int8)}

    def step(given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"y": given["x"] + used * given["motion"]}

    refused = pytest.raises(QuantizeError, match=r"no output of .* depends on input 'motion'")
    with contextlib.nullcontext() if used else refused:
        check_depends(step(inputs), inputs, {}, step)


def test_recurrent_state_is_neither_judged_nor_changed() -> None:
    inputs = {"x": np.array([[1, 2]], np.int8), "h": np.array([[3]], np.int8)}

    def step(given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert given["h"].tolist() == [[3]]
        return {"y": given["x"], "h_next": np.array([[5]])}

    check_depends(step(inputs), inputs, {"h": "h_next"}, step)


def test_the_negative_of_floats() -> None:
    inputs, seen = {"x": np.array([[1.5, -2.0]], np.float32)}, []
    check_depends(inputs, inputs, {}, lambda other: seen.append(other) or other)
    assert seen[0]["x"].tolist() == [[-1.5, 2.0]]
    assert seen[0]["x"].dtype == np.float32


def noise(level: float) -> dict[str, NDArray[Any]]:
    return {"x": level * np.random.default_rng(0).standard_normal((1, 4, 99))}


def test_a_stimulus_beyond_the_calibration_is_found_with_its_share() -> None:
    assert check_range(noise(1.0), [noise(1.0)], {"x": -6}, 8) == []
    (finding,) = check_range(noise(2.0), [noise(1.0)], {"x": -6}, 8)
    assert finding.rule == "S404"
    assert "% of input 'x' are clipped (peak" in finding.message


DEAD = network(["return F.relu(self.a(x) - 99)"], a="nn.Conv1d(4, 4, 1)")
# The bias alone takes the whole range.
BIASED = network(["return self.a(x)"], a="nn.Conv1d(4, 4, 1)").replace(
    "        def forward",
    "            self.a.weight.data *= 1e-3\n"
    "            self.a.bias.data[:] = 1.0\n\n"
    "        def forward",
)
# Of five classes, each always the same; a row before and behind the last frame.
HEAD = network(
    ["return self.head(self.a(x)[:, :, -3:].flatten(1))"],
    a="nn.Conv1d(4, 4, 1)",
    head="nn.Linear(12, 5)",
)
BIASED_HEAD = HEAD.replace(
    "        def forward",
    "            self.head.weight.data *= 1e-3\n"
    "            self.head.bias.data[:] = torch.linspace(-1, 1, 5)\n\n"
    "        def forward",
)
HALF = network(
    ["y = self.a(x)", "return torch.cat([F.relu(y[:, :2] - 99), y[:, 2:]], 1)"],
    a="nn.Conv1d(4, 4, 1)",
)
LOUD = network(
    ["return self.a(x)"],
    declared=", stimulus=lambda r: 9 * r.standard_normal((1, 4, 12)), "
    "calibration=lambda r: r.standard_normal((1, 4, 12))",
    a="nn.Conv1d(4, 4, 1)",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    models = {"dead": DEAD, "biased": BIASED, "half": HALF, "loud": LOUD, "head": HEAD}
    models["biased_head"] = BIASED_HEAD
    return prepared(tmp_path_factory.mktemp("alive"), models)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("dead", "always 0 in the float network too: a dead Relu"),
        ("biased", "in float it moves by 0.00"),
    ],
)
def test_a_network_that_says_nothing_is_refused(
    results: dict[str, Any], name: str, cause: str
) -> None:
    error = results[f"{name} int8 esp32s3"]
    assert isinstance(error, QuantizeError)
    assert f"output 'output' of the quantized network never changes ({cause}" in str(error)


def test_a_classifier_that_gives_its_bias_is_refused(results: dict[str, Any]) -> None:
    error = results["biased_head int8 esp32s3"]
    assert isinstance(error, QuantizeError)
    assert "output 'output' of the quantized network depends on no input" in str(error)
    assert isinstance(results["head int8 esp32s3"], Artifacts)


@pytest.mark.parametrize(("name", "rule"), [("half", "S403"), ("loud", "S404")])
def test_findings_stand_with_those_of_the_lint(
    results: dict[str, Any], name: str, rule: str
) -> None:
    made = results[f"{name} int8 esp32s3"]
    assert isinstance(made, Artifacts), made
    assert rule in {finding.rule for finding in made.lint[3]}
