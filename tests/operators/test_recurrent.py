"""GRU and LSTM against a plain model of the gates in float64, and their integer corners."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.operators.cell import SIGMOID_EDGE, TANH_EDGE, gate_table
from espdl_hil.operators.numeric import sigmoid32, tanh32

GATE = -9


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(x, w, r, b, h):
    """Float GRU, gates z r n, linear before reset; x (T, I). Returns the states."""
    n = len(h)
    states = []
    for frame in x:
        i, s = w @ frame + b[: 3 * n], r @ h + b[3 * n :]
        z, reset = sigmoid(i[:n] + s[:n]), sigmoid(i[n : 2 * n] + s[n : 2 * n])
        new = np.tanh(i[2 * n :] + reset * s[2 * n :])
        h = (1 - z) * new + z * h
        states.append(h)
    return np.array(states)


def lstm(x, w, r, b, h, c):
    """Float LSTM, gates i o f c. Returns the states and the last cell."""
    n = len(h)
    states = []
    for frame in x:
        gates = w @ frame + r @ h + b[: 4 * n] + b[4 * n :]
        i, o, f = (sigmoid(gates[k * n : (k + 1) * n]) for k in range(3))
        c = f * c + i * np.tanh(gates[3 * n :])
        h = o * np.tanh(c)
        states.append(h)
    return np.array(states), c


def parts(rng, gates, width, *, directions=1, hidden=9, inputs=7, frames=6):
    """Integer (or float) weights and input, small enough not to clamp every gate."""
    if width == "float32":
        make = lambda *shape: rng.normal(0, 0.5, shape).astype(np.float32)  # noqa: E731
        biases = make(directions, 2 * gates * hidden)
    else:
        top = 100 if width == "int8" else 20000
        make = lambda *shape: rng.integers(-top, top, shape).astype(width)  # noqa: E731
        biases = rng.integers(-200, 200, (directions, 2 * gates * hidden)).astype(np.int16)
    x = make(frames, 1, inputs)
    w, r = make(directions, gates * hidden, inputs), make(directions, gates * hidden, hidden)
    return x, w, r, biases, make(directions, 1, hidden)


EXPONENTS = {  # input, input weights, state weights, state
    "int8": (-6, -8, -8, -6),
    "int16": (-14, -16, -16, -14),
    "float32": (0, 0, 0, 0),
}


def run(lab, kind, width, pieces, chip, *, start, layout=0):
    x, w, r, b, h = pieces
    xe, we, re, he = EXPONENTS[width]
    directions, rows, _ = w.shape
    gates = {"GRU": 3, "LSTM": 4}[kind]
    ge = 0 if width == "float32" else GATE
    fed = x if layout == 0 else x.swapaxes(0, 1)
    inputs = [
        lab.Q(fed, (xe,)),
        lab.Q(w, (we,), True),
        lab.Q(r, (re,), True),
        lab.Q(b, (ge,), True),
    ]
    if start:
        inputs += [None, lab.Q(h, (he,))]
    cell = np.float32 if width == "float32" else np.int16
    outputs = [(width, he), (width, he)] + [(cell, ge)] * (kind == "LSTM")
    return lab.run(
        kind,
        inputs,
        outputs,
        chip=chip,
        hidden_size=rows // gates,
        gate_exponent=GATE,
        linear_before_reset=1,
        layout=layout,
        direction="bidirectional" if directions == 2 else "forward",
    )


def reals(pieces, width):
    x, w, r, b, h = (v.astype(float) for v in pieces)
    xe, we, re, he = (2.0**e for e in EXPONENTS[width])
    return x[:, 0] * xe, w * we, r * re, b * (1 if width == "float32" else 2.0**GATE), h[:, 0] * he


@pytest.mark.parametrize("width", ["int8", "int16", "float32"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("start", [False, True], ids=["from zero", "from initial_h"])
def test_gru_follows_the_float_model(lab, rng, chip, width, directions, start):
    pieces = parts(rng, 3, width, directions=directions)
    y, last = run(lab, "GRU", width, pieces, chip, start=start)
    x, w, r, b, h = reals(pieces, width)
    tolerance = 1e-5 if width == "float32" else 0.08
    for d in range(directions):
        order = slice(None, None, -1 if d else 1)
        wanted = gru(x[order], w[d], r[d], b[d], h[d] if start else 0 * h[d])[order]
        found = y[:, d, 0] * 2.0 ** EXPONENTS[width][3]
        assert np.abs(found - wanted).max() < tolerance
        assert np.array_equal(last[d, 0], y[0 if d else -1, d, 0])


@pytest.mark.parametrize("width", ["int8", "int16", "float32"])
@pytest.mark.parametrize("directions", [1, 2])
def test_lstm_follows_the_float_model(lab, rng, chip, width, directions):
    pieces = parts(rng, 4, width, directions=directions)
    y, last, cell = run(lab, "LSTM", width, pieces, chip, start=True)
    x, w, r, b, h = reals(pieces, width)
    tolerance = 1e-5 if width == "float32" else 0.08
    for d in range(directions):
        order = slice(None, None, -1 if d else 1)
        wanted, c = lstm(x[order], w[d], r[d], b[d], h[d], 0 * h[d])
        found = y[:, d, 0] * 2.0 ** EXPONENTS[width][3]
        assert np.abs(found - wanted[order]).max() < tolerance
        assert np.array_equal(last[d, 0], y[0 if d else -1, d, 0])
        scale = 1 if width == "float32" else 2.0**GATE
        assert np.abs(cell[d, 0] * scale - c).max() < tolerance


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_layout_1_is_the_same_with_batch_first(lab, rng, kind):
    pieces = parts(rng, {"GRU": 3, "LSTM": 4}[kind], "int8")
    first, *_ = run(lab, kind, "int8", pieces, "c", start=False)
    second, *_ = run(lab, kind, "int8", pieces, "c", start=False, layout=1)
    assert np.array_equal(first, second)


def test_state_does_not_survive_a_run(lab, rng):
    from espdl_hil.interpreter import load

    x, w, r, b, _ = parts(rng, 3, "int8")
    xe, we, re, he = EXPONENTS["int8"]
    inputs = [lab.Q(x, (xe,)), lab.Q(w, (we,), True), lab.Q(r, (re,), True)]
    inputs.append(lab.Q(b, (GATE,), True))
    graph = lab.graph(
        "GRU", inputs, [(np.int8, he)] * 2, hidden_size=9, gate_exponent=GATE,
        linear_before_reset=1,
    )  # fmt: skip
    session = load(graph, "c")
    first = session.step({"x0": x})["y0"]
    assert np.array_equal(session.step({"x0": x})["y0"], first)


@pytest.mark.parametrize(
    ("function", "edge", "centre", "last"),
    [(sigmoid32, SIGMOID_EDGE, 1, 3226), (tanh32, TANH_EDGE, 0, 1793)],
)
def test_gate_tables_clamp_and_mirror(function, edge, centre, last):
    table = gate_table(function, GATE, edge, centre)
    index = np.array([0, 1, last - 1, last, last + 1, 32767])
    found = table(index)
    assert found[3] == found[4] == found[5] == function(np.float32([last * 2.0**GATE]))[0]
    assert found[2] < found[3]
    assert np.array_equal(table(-index)[1:], np.float32(centre) - found[1:])


def test_gate_biases_wrap_around(lab):
    # gate sums are int16: 32767 + 1 becomes -32768, and the update gate closes instead of opening
    one = lambda values, e, t=np.int8: lab.const(values, e, t)  # noqa: E731
    x = lab.q([[[0]]], -6)
    bias = np.zeros((1, 6), np.int16)
    bias[0, 0] = 32767
    bias[0, 3] = 1  # recurrent bias of the same gate: added as int, does not wrap
    args = [
        x,
        one(np.zeros((1, 3, 1)), -8),
        one(np.zeros((1, 3, 1)), -8),
        one(bias, GATE, np.int16),
    ]
    state = lab.q([[[64]]], -6)
    options = {"hidden_size": 1, "gate_exponent": GATE, "linear_before_reset": 1}
    y, _ = lab.run("GRU", [*args, None, state], [(np.int8, -6)] * 2, **options)
    assert y.item() == 64  # z is 1: the state stays
    weights = one(np.full((1, 3, 1), 127), 0)  # saturates the product at 32767, plus 1 wraps
    bias = np.zeros((1, 6), np.int16)
    bias[0, 0] = 1
    wrapped = [
        lab.q([[[127]]], 0),
        weights,
        one(np.zeros((1, 3, 1)), -8),
        one(bias, GATE, np.int16),
    ]
    y, _ = lab.run("GRU", [*wrapped, None, state], [(np.int8, -6)] * 2, **options)
    assert y.item() == 64  # z is 0 and n is 1: the state is the new one
