"""Every operator on random nodes, against ESP-DL's compiled C kernels; see kernels/README.md.

The C kernels of both roundings are exact. So are the chips, but for what their vector kernels are
known to compute otherwise, which is named here and nothing else may differ.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl import pack_filter, pack_matrices, unpack_filter, unpack_matrices
from espdl_hil.interpreter import load
from espdl_hil.operators import OPERATORS
from espdl_hil.targets import TARGETS, Rounding

VECTORS = Path(__file__).parent / "kernels" / "vectors.npz"
CHIPS = {"half_even": "esp32p4", "half_up": "esp32s3"}
PORTABLE = {"half_even": "c_even", "half_up": "c"}
# where a vector kernel is not the C kernel on some vector here, by chip, operator and type
DIFFERS = {
    "esp32s3": {
        ("Equal", "S16"): "the output is placed in an input, refused",
        ("Less", "S16"): "the output is placed in an input, refused",
        ("LessOrEqual", "S16"): "the output is placed in an input, refused",
        ("PRelu", "S8"): "rounds products up, C floors",
        ("PRelu", "S16"): "wraps products, C saturates",
        ("RequantizeLinear", "S16"): "does not write 8 outputs, refused",
        ("Resize", "S8"): "garbage below 16 channels, refused",
    },
    "esp32p4": {
        ("DequantizeLinear", "S16"): "does not write 8 outputs, refused",
        ("Equal", "S16"): "the output is placed in an input, refused",
        ("GreaterOrEqual", "S16"): "the output is placed in an input, refused",
        ("Less", "S16"): "the output is placed in an input, refused",
        ("LessOrEqual", "S16"): "the output is placed in an input, refused",
        ("PRelu", "S8"): "rounds products to even, C floors",
        ("QuantizeLinear", "S16"): "does not write 8 outputs, refused",
        ("Resize", "S8"): "garbage below 16 channels or an unset rounding mode, refused",
    },
}
COARSE = {"AveragePool", "GRU", "GlobalAveragePool", "LSTM", "LayerNormalization"}
COARSE |= {"RMSNormalization"}
RECURRENT = {"GRU", "LSTM"}


@cache
def vectors():
    with np.load(VECTORS) as archive:
        return json.loads(archive["index"].tobytes()), archive["blob"].tobytes()


def array(entry):
    dtype, shape, offset = entry
    count = int(np.prod(shape, dtype=int))
    return np.frombuffer(vectors()[1], dtype, count, offset).reshape(shape)


def repacked(values, packing, target):
    """A filter as *target* stores it."""
    if packing == "matrices":
        return pack_matrices(unpack_matrices(values, values.shape, "c"), target)
    deep = packing == "depthwise"
    logical = unpack_filter(values.reshape(-1), values.shape, "c", depthwise=deep)
    return pack_filter(logical, target, depthwise=deep).reshape(values.shape)


def inputs_of(case, target, lab):
    found = []
    for entry in case["inputs"]:
        if entry is None:
            found.append(None)
            continue
        values = array(entry["array"])
        if entry["packing"]:
            values = repacked(values, entry["packing"], target)
        found.append(lab.Q(values, tuple(entry["exponents"]), entry["constant"]))
    return found


def execute(case, target, lab):
    """Outputs of every step."""
    inputs = inputs_of(case, target, lab)
    attributes = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in case["attributes"].items()
        if name != "quant_type"
    }
    table = case["table"]
    graph = lab.graph(
        case["op"],
        inputs,
        [(output["dtype"], output["exponent"]) for output in case["outputs"]],
        table=lab.Q(array(table["array"]), tuple(table["exponents"]), True) if table else None,
        width=case["width"],
        **attributes,
    )
    session = load(graph, target)
    first = {i: q.array for i, q in enumerate(inputs) if q is not None and not q.constant}
    later = [{int(i): array(entry) for i, entry in step.items()} for step in case["steps"]]
    steps = []
    for feeds in [first, *later]:
        outputs = session.step({f"x{i}": values for i, values in feeds.items()})
        steps.append([outputs[f"y{i}"] for i in range(len(outputs))])
    return steps


def agrees(observed, expected, op):
    if (observed.dtype, observed.shape) != (expected.dtype, expected.shape):
        return False
    if expected.dtype == np.float32:
        tolerance = (1e-5, 1e-6) if op in COARSE else (1e-6, 0)
        return np.allclose(observed, expected, *tolerance, equal_nan=True)
    limit = 1 if op in RECURRENT and expected.dtype == np.int16 else 0
    error = np.abs(observed.astype(np.int64) - expected.astype(np.int64))
    return bool((error <= limit).all())


@pytest.fixture(autouse=True)
def portable(monkeypatch):
    """A target with the C kernels and the P4's rounding."""
    even = replace(TARGETS["c"], rounding=Rounding.HALF_EVEN)
    monkeypatch.setitem(TARGETS, "c_even", even)


def same(case, target, lab):
    results = execute(case, target, lab)
    return all(
        agrees(ours, array(theirs), case["op"])
        for observed, expected in zip(results, case["results"], strict=True)
        for ours, theirs in zip(observed, expected, strict=True)
    )


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_operator(op, lab):
    cases = [case for case in vectors()[0] if case["op"] == op]
    assert cases
    for number, case in enumerate(cases):
        if any(len(entry["exponents"]) > 1 for entry in case["inputs"] if entry):
            continue  # a filter with an exponent per channel, which the P4 alone has
        assert same(case, PORTABLE[case["rounding"]], lab), (number, case["attributes"])


@pytest.mark.parametrize("chip", CHIPS.values())
def test_operators_on_chips(chip, lab):
    differing = set()
    for case in vectors()[0]:
        if CHIPS[case["rounding"]] != chip or case["portable_only"]:
            continue
        try:
            alike = same(case, chip, lab)
        except UnsupportedOpError:
            alike = False
        if not alike:
            differing.add((case["op"], case["width"]))
    assert differing == DIFFERS[chip].keys()


def test_every_width_and_rounding_has_cases():
    counts = Counter((c["op"], c["width"], c["rounding"]) for c in vectors()[0])
    missing = {
        (name, width, rounding)
        for name, operator in OPERATORS.items()
        for width in operator.widths
        for rounding in CHIPS
        if counts[name, width, rounding] < 3
    }
    # the table lists it, but the chip cuts fractions off, so the interpreter refuses it
    assert missing == {("ReverseSequence", "F32", rounding) for rounding in CHIPS}


def test_the_comparison_sees_one_lsb_and_the_other_rounding(lab):
    ties = [c for c in vectors()[0] if (c["op"], c["rounding"]) == ("Mul", "half_even")]
    case = next(c for c in ties if c["width"] == "S8")
    expected = array(case["results"][0][0])
    observed = execute(case, "esp32p4", lab)[0][0]
    assert agrees(observed, expected, "Mul")
    observed.reshape(-1)[0] ^= 1
    assert not agrees(observed, expected, "Mul")
    assert not all(
        agrees(execute(c, "c", lab)[0][0], array(c["results"][0][0]), "Mul") for c in ties
    )
