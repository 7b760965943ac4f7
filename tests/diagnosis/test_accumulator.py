from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from espdl_hil.diagnosis.accumulator import settle, sums_of
from espdl_hil.diagnosis.first_divergence import maker
from espdl_hil.diagnosis.node_replay import Suspect
from espdl_hil.diagnosis.replay import Stream
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


def suspect_of(subject, output):
    """The node that computes *output*, as if a device had computed it rightly."""
    traces = Stream(subject.case([], subject.judge(subject.expected))).trace(subject.chunks)
    node = maker(subject.graph, output)
    case = subject.case(subject.expected, subject.judge(subject.expected))
    sources = [n for n in node.inputs if n not in subject.graph.initializers]
    expected = np.stack([trace[output] for trace in traces])
    return Suspect(
        case=case,
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
        sums = sums_of(suspect_of(subjects[f"{model}.{target}.int{bits}"], output))
        assert sums is not None, output


def test_no_sums_where_they_do_not_explain_the_node(subjects):
    suspect = suspect_of(subjects["residual-chunk3.esp32s3.int8"], "41")
    wrong = suspect.expected.copy()
    wrong[0, 0, 0, 0] ^= 1
    assert sums_of(replace(suspect, expected=wrong)) is None
    table = suspect_of(subjects["residual-chunk3.esp32s3.int8"], "/Mul_output_0")
    assert sums_of(table) is None


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("index", "delta"), [(0, 32), (5, -64), (23, 1), (24, 4096)])
def test_the_changed_element_is_found(subjects, bits, index, delta):
    """Index 24 is the bias: the filter has 24 elements."""
    suspect = suspect_of(subjects[f"residual-chunk3.esp32p4.int{bits}"], "41")
    sums = sums_of(suspect)
    products = sums.products
    channel = 3
    x = np.append(products.column(channel), np.ones((len(sums.values), 1), np.int64), axis=1)
    changed = sums.values.copy()
    changed[:, channel] += delta * (1 if bits == 8 else 64) * x[:, index]
    observed = sums.evaluate(values=changed)[:, channel]
    if np.array_equal(observed, sums.evaluate()[:, channel]):
        pytest.skip("so small a change does not show")
    found = solve(sums, products, channel, observed)
    again = sums.values.copy()
    for where, by in found.items():
        again[:, channel] += by * x[:, where]
    assert np.array_equal(sums.evaluate(values=again)[:, channel], observed)
    assert list(found) == [index]


def test_a_run_of_elements_is_found(subjects):
    suspect = suspect_of(subjects["residual-chunk3.esp32s3.int16"], "41")
    sums = sums_of(suspect)
    column = sums.products.column(2)
    deltas = {7: 3000, 8: -2500}
    changed = sums.values.copy()
    for index, delta in deltas.items():
        changed[:, 2] += delta * column[:, index]
    observed = sums.evaluate(values=changed)[:, 2]
    assert list(solve(sums, sums.products, 2, observed)) == [7, 8]


def test_what_no_element_explains_is_not_solved(subjects):
    suspect = suspect_of(subjects["residual-chunk3.esp32s3.int8"], "41")
    sums = sums_of(suspect)
    noise = np.random.default_rng(0).integers(-90, 90, len(sums.values)).astype(np.int8)
    assert solve(sums, sums.products, 2, noise) is None
