from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from espdl_hil.diagnosis.accumulator import Factors, settle, sums_of
from espdl_hil.diagnosis.first_divergence import maker
from espdl_hil.diagnosis.node_replay import NodeReplay
from espdl_hil.diagnosis.replay import HostRun
from espdl_hil.diagnosis.solver import solve


def exact(value, shift, mode):
    """The same in rational arithmetic."""
    real = Fraction(value) / Fraction(2) ** shift
    if mode == "down":
        return floor(real)
    if mode == "to zero":
        return int(real)
    nearest = floor(real + Fraction(1, 2))
    if real + Fraction(1, 2) == nearest:  # a half
        if mode == "halves to even" and nearest % 2:
            return nearest - 1
        if mode == "halves away from zero" and real < 0:
            return nearest - 1
    return nearest


@pytest.mark.parametrize(
    "mode", ["halves up", "halves to even", "halves away from zero", "down", "to zero"]
)
@pytest.mark.parametrize("shift", [-3, 0, 1, 2, 5])
def test_settle_is_exact_at_every_tie(mode, shift):
    values = np.arange(-200, 200)
    got = settle(values.astype(np.int64), np.array(shift), mode)
    assert got.tolist() == [exact(int(v), shift, mode) for v in values]


def replay_of(subject, output):
    """The node that computes *output*, as if a device had computed it rightly."""
    traces = HostRun(subject.graph, subject.target, {}).trace(subject.chunks)
    node = maker(subject.graph, output)
    sources = [n for n in node.inputs if n not in subject.graph.initializers]
    expected = np.stack([trace[output] for trace in traces])
    return NodeReplay(
        mismatch=subject.mismatch(subject.expected, subject.compare(subject.expected)),
        node=node,
        output=output,
        numbers=tuple(range(len(traces))),
        inputs=tuple({name: trace[name] for name in sources} for trace in traces),
        expected=expected,
        observed=expected.copy(),
    )


@pytest.mark.parametrize("target", ["esp32s3", "esp32p4"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("residual-chunk3", ("/Relu_output_0", "/Relu_1_output_0", "/Add_output_0", "41")),
        ("stack-chunk4", ("/a/c/Conv_output_0", "/Relu_output_0", "/d/c/Conv_output_0")),
    ],
)
def test_sums_give_what_the_interpreter_gives(subjects, model, outputs, target, bits):
    """Dense, depthwise and dilated convolutions with Relu, and sums of two tensors."""
    for output in outputs:
        sums = sums_of(replay_of(subjects[f"{model}.{target}.int{bits}"], output))
        assert sums is not None, output


def test_only_what_was_observed_explains_it(subjects):
    replay = replay_of(subjects["residual-chunk3.esp32s3.int8"], "41")
    assert replay.explained_by(replay.in_rows(replay.observed))
    assert not replay.explained_by(replay.in_rows(replay.observed + 1))
    assert not replay.explained_by(replay.observed[:1])
    assert not replay.explained_by(None)


def test_no_sums_where_they_do_not_explain_the_node(subjects):
    replay = replay_of(subjects["residual-chunk3.esp32s3.int8"], "41")
    wrong = replay.expected.copy()
    wrong[0, 0, 0, 0] ^= 1
    assert sums_of(replace(replay, expected=wrong)) is None
    table = replay_of(subjects["residual-chunk3.esp32s3.int8"], "/Mul_output_0")
    assert sums_of(table) is None


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("index", "delta"), [(0, 32), (5, -64), (23, 1), (24, 4096)])
def test_the_changed_element_is_found(subjects, bits, index, delta):
    """Index 24 is the bias: the filter has 24 elements."""
    replay = replay_of(subjects[f"residual-chunk3.esp32p4.int{bits}"], "41")
    sums = sums_of(replay)
    factors = sums.factors
    channel = 3
    x = np.append(factors.column(channel), np.ones((len(sums.values), 1), np.int64), axis=1)
    changed = sums.values.copy()
    changed[:, channel] += delta * (1 if bits == 8 else 64) * x[:, index]
    observed = sums.evaluate(values=changed)[:, channel]
    if np.array_equal(observed, sums.evaluate()[:, channel]):
        pytest.skip("so small a change does not show")
    found = solve(sums, factors, channel, observed)
    again = sums.values.copy()
    for where, by in found.items():
        again[:, channel] += by * x[:, where]
    assert np.array_equal(sums.evaluate(values=again)[:, channel], observed)
    assert list(found) == [index]


def test_a_run_of_elements_is_found(subjects):
    replay = replay_of(subjects["residual-chunk3.esp32s3.int16"], "41")
    sums = sums_of(replay)
    column = sums.factors.column(2)
    deltas = {7: 3000, 8: -2500}
    changed = sums.values.copy()
    for index, delta in deltas.items():
        changed[:, 2] += delta * column[:, index]
    observed = sums.evaluate(values=changed)[:, 2]
    assert list(solve(sums, sums.factors, 2, observed)) == [7, 8]


def test_what_no_element_explains_is_not_solved(subjects):
    replay = replay_of(subjects["residual-chunk3.esp32s3.int8"], "41")
    sums = sums_of(replay)
    noise = np.random.default_rng(0).integers(-90, 90, len(sums.values)).astype(np.int8)
    assert solve(sums, sums.factors, 2, noise) is None


@pytest.mark.parametrize("depthwise", [False, True])
def test_narrow_lanes_saturate_at_every_sum(depthwise):
    rng = np.random.default_rng(4)
    shape = (6, 300, 3) if depthwise else (6, 300)
    x = rng.integers(-128, 128, shape)
    x[:3] = np.abs(x[:3])  # sums that leave 20 bits
    weights = rng.integers(-20, 128, (300, 3))
    factors = Factors(x, weights, np.array([5, -7, 0]), (3, 1, 1, 300))
    lanes = np.zeros((6, 3), np.int64)
    for m, n in np.ndindex(6, 3):
        lane = 0
        for k in range(300):
            factor = int(x[m, k, n] if depthwise else x[m, k])
            lane = min(max(lane + factor * int(weights[k, n]), -(2**19)), 2**19 - 1)
        lanes[m, n] = lane + (5, -7, 0)[n]
    assert np.array_equal(factors.in_lanes(), lanes)
    assert not np.array_equal(factors.sums(), lanes)
