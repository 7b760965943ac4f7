"""A model's own metric of its task: what it is given, where it is noted, and its mistakes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.proof import metric as room
from espdl_hil.proof.expected import Expected
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.metric import compare_metric
from espdl_hil.report import ResultsError, Row, validate_results


@pytest.fixture
def with_metric(rig, case):
    """The case and what is expected of it, for a model with some metric."""

    def make(metric):
        changed = replace(case, model=replace(case.model, metric=metric))
        return Expected(changed, rig.expected(case).artifacts)

    return make


@pytest.fixture
def seen(with_metric):
    """What a metric is given: the outputs of the float model, the offline run and the stream."""
    calls = []

    def metric(outputs, random):
        calls.append((outputs, random))
        return len(calls)

    expected = with_metric(metric)
    found = compare_metric(expected, expected.offline, expected.stream)
    assert found == {"float": 1.0, "offline": 2.0, "streamed": 3.0}
    return SimpleNamespace(expected=expected, calls=calls)


def test_it_gets_real_values_in_the_modules_own_layout(seen):
    floats, offline, streamed = (outputs["output"] for outputs, _ in seen.calls)
    assert floats.shape == offline.shape == streamed.shape == (1, 4, 12)  # the file's is (1, 12, 4)
    assert floats.dtype == offline.dtype == np.float64
    np.testing.assert_array_equal(offline, streamed)
    assert 0 < np.abs(floats - offline).max() < 0.2 * np.abs(floats).max()
    (name,) = seen.expected.artifacts.float_outputs
    of_file = seen.expected.artifacts.float_outputs[name]
    np.testing.assert_array_equal(floats, of_file.transpose(0, 2, 1))


def test_its_generator_draws_what_the_stimulus_was_drawn_from(seen):
    stimulus = seen.expected.artifacts.stimulus["input"]
    for _, random in seen.calls:
        np.testing.assert_array_equal(random.standard_normal((1, 4, 12)).astype("f4"), stimulus)


def test_a_stream_with_a_latency_is_judged_by_the_frames_that_it_gives():
    alignment = SimpleNamespace(output="y", kind="delayed", frame_axis=1, latency_frames=2)
    steps = [np.arange(k, k + 3).reshape(1, 3, 1) for k in (0, 3)]
    assert room._joined(alignment, steps).ravel().tolist() == [2, 3, 4, 5]


def test_a_tail_is_judged_by_its_last_answer():
    alignment = SimpleNamespace(output="y", kind="tail", frame_axis=1, latency_frames=0)
    assert room._joined(alignment, [np.array([1]), np.array([2])]).tolist() == [2]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda outputs, random: outputs["gone"], "metric of model 'residual' raised KeyError"),
        (lambda outputs, random: float("nan"), "metric of model 'residual' gave nan"),
    ],
)
def test_its_mistakes_are_one_message(with_metric, metric, message):
    expected = with_metric(metric)
    with pytest.raises(ConfigError, match=message):
        compare_metric(expected, expected.offline, expected.stream)


def test_without_one_there_is_none(proof, book):
    assert proof.accuracy().metric is None
    assert book.row(proof.case).accuracy.metric is None


def test_the_row_keeps_it_and_its_json_is_checked(with_metric, book, monkeypatch):
    expected = with_metric(lambda outputs, random: 0.5)
    monkeypatch.setattr(book.rig, "expected", lambda case: expected)
    Hil(expected.case, book).verify()

    row = book.row(expected.case)
    assert row.accuracy.metric == {"float": 0.5, "offline": 0.5, "streamed": 0.5}
    results = book.results.to_json()
    validate_results(results)
    (data,) = results["rows"]
    assert Row.from_json(data).accuracy.metric == row.accuracy.metric
    del data["checks"]["accuracy"]["metric"]["streamed"]
    with pytest.raises(ResultsError, match="accuracy: metric is not three numbers"):
        validate_results(results)
    del data["checks"]["accuracy"]["metric"]  # a report from before there were metrics
    validate_results(results)
    assert Row.from_json(data).accuracy.metric is None


def test_a_wrong_stream_has_another_metric_than_the_offline_run(with_metric):
    expected = with_metric(lambda outputs, random: float(np.abs(outputs["output"]).sum()))
    wrong = [dict(step) for step in expected.stream]
    wrong[1]["output"] = np.zeros_like(wrong[1]["output"])
    found = compare_metric(expected, expected.offline, wrong)
    assert found["streamed"] < found["offline"]
