"""All golden vectors of ESP-DL's own kernels, at every node: 0 LSB, float outputs 1e-6 relative."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.interpreter import load

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name.removesuffix(".npz") for path in GOLDEN.glob("*.npz"))
FLOAT_RELATIVE = 1e-6  # the vectors were made with a desktop's expf
RECURRENT_LSB = 1  # float gates behind an int16 state, see the vectors' README


@dataclass
class Difference:
    tensor: str
    differing: int
    elements: int
    worst: float


def at(arrays, stream, step, side, tensor):
    return arrays[f"s{stream}/t{step}/{side}" + (tensor if tensor[0] == "/" else f"/{tensor}")]


def compare(expected, observed, tensor, tolerance_lsb):
    """The difference of one tensor, None if it is within tolerance."""
    assert expected.size, f"{tensor} is empty"
    assert (observed.dtype, observed.shape) == (expected.dtype, expected.shape), tensor
    if expected.dtype == np.float32:
        error = np.abs(observed - expected) / np.maximum(np.abs(expected), np.finfo("f4").tiny)
        error = np.where(observed == expected, 0, error)
        outside = ~(error <= FLOAT_RELATIVE)
    else:
        error = np.abs(observed.astype(np.int64) - expected.astype(np.int64))
        outside = error > tolerance_lsb
    if not outside.any():
        return None
    return Difference(tensor, int(outside.sum()), expected.size, float(error.max()))


def run(model, index, arrays, tolerance_lsb=None, *, partial_outputs=False):
    """Differences of every node of every step of every stream, and the elements compared."""
    execution = load(model, index["target"])
    if tolerance_lsb is None:
        recurrent = any(kind in model for kind in (b"GRU", b"LSTM"))
        wide = any(info.dtype == np.int16 for info in execution.inputs)
        tolerance_lsb = RECURRENT_LSB if recurrent and wide else 0
    differences, elements = [], 0
    for stream, plan in enumerate(index["streams"]):
        execution.reset()
        for step in range(plan["steps"]):
            feeds = {name: at(arrays, stream, step, "in", name) for name in index["inputs"]}
            outputs = execution.step(feeds)
            assert outputs.keys() == set(plan["outputs"]) or partial_outputs
            assert outputs.keys() >= set(plan["outputs"])
            for tensor in plan["order"]:
                expected = at(arrays, stream, step, "out", tensor)
                elements += expected.size
                found = compare(expected, execution.trace[tensor], tensor, tolerance_lsb)
                differences += [found] if found else []
            assert list(plan["exponents"].items()) == [
                (name, _as_given(execution.exponents[name], given))
                for name, given in plan["exponents"].items()
            ]
    return differences, elements


def _as_given(exponents, given):
    return list(exponents) if isinstance(given, list) else exponents[0]


def test_all_the_cases_are_here():
    assert len(CASES) == 258


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    differences, elements = run(*golden(name))
    assert elements > 0
    assert not differences


def test_golden_fails_on_another_rounding(golden):
    model, index, arrays = golden("mul.esp32p4.int8")
    differences, _ = run(model, {**index, "target": "esp32s3"}, arrays)
    assert differences


def test_golden_fails_on_a_changed_weight(golden):
    data, index, arrays = golden("tcn_res.esp32s3.int8")
    model = bytearray(data)
    weight = load(bytes(model), "esp32s3")._graph.initializers
    span = max((t for t in weight.values() if t.span), key=lambda t: t.info.size).span
    model[span.offset] ^= 0x40
    differences, _ = run(bytes(model), index, arrays)
    assert differences


def test_golden_fails_when_state_is_not_kept(golden):
    model, index, arrays = golden("stream_stack.streaming.esp32s3.int8")
    execution = load(model, "esp32s3")
    plan = index["streams"][0]
    wrong = 0
    for step in range(plan["steps"]):
        execution.reset()
        execution.step({name: at(arrays, 0, step, "in", name) for name in index["inputs"]})
        for tensor in plan["order"]:
            wrong += not np.array_equal(at(arrays, 0, step, "out", tensor), execution.trace[tensor])
    assert wrong
