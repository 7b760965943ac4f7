"""Faults of the arithmetic: each changes what it says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil import espdl, interpreter
from espdl_hil.errors import ConfigError
from espdl_hil.simulator.faults import (
    LutEntry,
    OutputUnwritten,
    Requantized,
    SaturationWrap,
    StateDropped,
    StateKept,
    WeightBit,
    WrongRounding,
    WrongShift,
    flip_weight,
)
from espdl_hil.simulator.faulty_model import load_faulty
from espdl_hil.wire import messages

CASES = [
    f"stream_residual.streaming.{target}.{width}"
    for target in ("esp32s3", "esp32p4")
    for width in ("int8", "int16")
]


@pytest.fixture(params=CASES)
def case(request, golden):
    return golden(request.param), request.param.split(".")[2]


def first_of(golden, op_type):
    return next(n for n in espdl.load_graph(golden.model).nodes if n.op_type == op_type)


def trace_of(golden, target, *faults):
    """Every node output of the first step."""
    session, acting = load_faulty(espdl.load_graph(golden.model), target, faults)
    assert acting == faults
    session.step({name: golden.tensor(0, "in", name) for name in golden.inputs})
    return {name: session.trace[name].copy() for name in golden.order}


def test_no_fault_changes_nothing(case):
    golden, target = case
    trace = trace_of(golden, target)
    assert all(np.array_equal(trace[n], golden.tensor(0, "out", n)) for n in golden.order)


@pytest.mark.parametrize("bits", [1, 3, -1])
def test_a_wrong_shift(case, bits):
    golden, target = case
    node = first_of(golden, "Conv")
    name = node.outputs[0]
    right = golden.tensor(0, "out", name).astype(np.int64)
    limits = np.iinfo(golden.tensor(0, "out", name).dtype)
    expected = right >> bits if bits > 0 else np.clip(right << -bits, limits.min, limits.max)
    assert not np.array_equal(expected, right)
    assert np.array_equal(trace_of(golden, target, WrongShift(node.name, bits))[name], expected)


def test_saturation_that_wraps(case):
    golden, target = case
    node = next(
        node
        for node in espdl.load_graph(golden.model).nodes
        if node.op_type == "Conv" and golden.tensor(0, "out", node.outputs[0]).min() < 0
    )
    name = node.outputs[0]
    saturating = WrongShift(node.name, -6)  # makes the results leave the range
    right = trace_of(golden, target, saturating)[name]
    wrapped = trace_of(golden, target, saturating, SaturationWrap(node.name))[name]
    limits = np.iinfo(right.dtype)
    low, high = right == limits.min, right == limits.max
    assert low.any()
    assert high.any()
    assert (wrapped[low] == limits.max).all()
    assert (wrapped[high] == limits.min).all()
    assert np.array_equal(wrapped[~(low | high)], right[~(low | high)])


def test_the_other_targets_rounding(golden):
    s3 = golden("dwconv1d_k5_dil_relu.esp32s3.int8")
    values = trace_of(s3, "esp32s3", WrongRounding())
    differences = [
        values[name].astype(int) - s3.tensor(0, "out", name).astype(int) for name in s3.order
    ]
    assert any(difference.any() for difference in differences)
    assert np.abs(differences[0]).max() == 1


@pytest.mark.parametrize("width", ["int8", "int16"])
def test_a_wrong_table_entry(golden, width):
    golden = golden(f"silu.esp32s3.{width}")
    node = next(n for n in espdl.load_graph(golden.model).nodes if "lut" in n.attributes)
    name = node.outputs[0]
    right = golden.tensor(0, "out", name)
    way = "in" if node.inputs[0] in golden.inputs else "out"
    source = golden.tensor(0, way, node.inputs[0])
    entries = espdl.load_graph(golden.model).initializers[node.attributes["lut"]].info.size
    step = (1 << (8 * right.dtype.itemsize)) // (256 if width == "int8" else entries - 1)
    value = int(source.reshape(-1)[0])
    index = (value - np.iinfo(right.dtype).min + step // 2) // step
    wrong = trace_of(golden, "esp32s3", LutEntry(node.name, index, 0x05))[name]
    changed = wrong != right
    assert changed.reshape(-1)[0]
    assert not changed.all()
    assert (wrong[changed] == right[changed] ^ 0x05).all()


def test_a_flipped_weight_bit(case):
    golden, target = case
    node = first_of(golden, "Conv")
    trace = trace_of(golden, target, WeightBit(node.inputs[1], 0, 6))
    name = node.outputs[0]
    changed = trace[name] != golden.tensor(0, "out", name)
    assert changed.any()
    assert changed.reshape(-1, changed.shape[-1]).any(axis=0).sum() == 1  # one output channel


def test_faults_without_a_place_in_the_model_are_left_out(golden):
    golden = golden("relu.esp32s3.int8")
    faults = (WrongShift("no such node"), WeightBit("nothing", 0), LutEntry("none", 0))
    graph = espdl.load_graph(golden.model)
    session, acting = load_faulty(graph, "esp32s3", faults)
    assert acting == ()
    assert type(session) is type(interpreter.load(graph, "esp32s3"))


def test_a_float_result_is_not_shifted(golden):
    golden = golden("softmax.esp32s3.int8")
    graph = espdl.load_graph(golden.model)
    node = next(n for n in graph.nodes if n.op_type == "Softmax")
    assert graph.info(node.outputs[0]).dtype == np.float32
    faults = (WrongShift(node.name), SaturationWrap(node.name))
    assert load_faulty(graph, "esp32s3", faults)[1] == ()


def test_an_element_that_does_not_exist(case):
    golden, target = case
    node = first_of(golden, "Conv")
    with pytest.raises(ConfigError, match=r"element 10000000 or bits 0x1 are out of range"):
        trace_of(golden, target, WeightBit(node.inputs[1], 10_000_000))


# -- through the core --------------------------------------------------------


@pytest.fixture
def loaded(golden, bench):
    golden = golden("stream_residual.streaming.esp32s3.int8")
    bench = bench("esp32s3", {"model": golden.model})
    return golden, bench, bench.wire.load("model").handle


def run(golden, bench, handle, *, reset=True):
    chunks = [golden.chunk(step) for step in golden.steps]
    return [reply.data for reply in bench.wire.stream(handle, chunks, reset=reset)]


def right_results(golden):
    return [golden.result(step) for step in golden.steps]


def test_a_fault_acts_on_models_loaded_later(loaded):
    golden, bench, handle = loaded
    node = first_of(golden, "Conv")
    bench.injection.inject(WrongShift(node.name))
    assert run(golden, bench, handle) == right_results(golden)
    loaded_again = bench.wire.ask(messages.Load("model"))
    assert run(golden, bench, loaded_again.handle) != right_results(golden)
    assert bench.runner.notes == [
        f"WrongShift(model=None, node='{node.name}', bits=1) acts in model model"
    ]
    bench.injection.clear()
    repaired = bench.wire.ask(messages.Load("model"))
    assert run(golden, bench, repaired.handle) == right_results(golden)


def test_a_flipped_bit_does_not_show_in_the_hash(loaded):
    golden, bench, _ = loaded
    right = bench.wire.ask(messages.Load("model"))
    bench.injection.inject(WeightBit(first_of(golden, "Conv").inputs[1], 0, 6))
    wrong = bench.wire.ask(messages.Load("model"))
    assert wrong.sha256 == right.sha256
    assert run(golden, bench, wrong.handle) != right_results(golden)


def test_faults_of_another_model_do_not_act(loaded):
    golden, bench, _ = loaded
    bench.injection.inject(WrongShift(first_of(golden, "Conv").name, model="another"))
    bench.injection.inject(StateDropped(model="another"))
    handle = bench.wire.ask(messages.Load("model")).handle
    assert run(golden, bench, handle) == right_results(golden)


def test_state_that_is_not_reset(loaded):
    golden, bench, handle = loaded
    bench.injection.inject(StateKept())
    assert run(golden, bench, handle) == right_results(golden)  # zero from its loading on
    assert run(golden, bench, handle)[0] != golden.result(0)
    bench.injection.clear()
    assert run(golden, bench, handle) == right_results(golden)


def test_state_that_is_dropped_at_one_step(loaded):
    golden, bench, handle = loaded
    bench.injection.inject(StateDropped(step=2))
    results = run(golden, bench, handle)
    assert results[:2] == right_results(golden)[:2]
    assert results[2] != golden.result(2)


def test_state_that_is_dropped_always(loaded):
    golden, bench, handle = loaded
    bench.injection.inject(StateDropped())
    results = run(golden, bench, handle)
    assert results[0] == golden.result(0)
    assert all(results[step] != golden.result(step) for step in golden.steps if step)


def test_an_output_that_is_not_written(loaded):
    golden, bench, handle = loaded
    name = golden.outputs[0]
    bench.injection.inject(OutputUnwritten(name, step=1))
    chunks = [golden.chunk(step) for step in golden.steps]
    replies = bench.wire.stream(handle, chunks)
    size = golden.tensor(0, "out", name).nbytes
    assert [reply.unwritten_tensors for reply in replies] == [int(s == 1) for s in golden.steps]
    assert (replies[1].unwritten_output, replies[1].unwritten_bytes) == (0, size)
    assert replies[0].data == golden.result(0)


# -- a weight for controls -----------------------------------------------------


def test_the_first_weight_whose_flipping_matters(golden):
    golden = golden("stream_residual.streaming.esp32s3.int8")
    tried = []

    def third(data):
        tried.append(data)
        return len(tried) == 3

    flipped = flip_weight(golden.model, third)
    assert flipped == tried[2]
    name = first_of(golden, "Conv").inputs[1]
    before, after = (espdl.load_graph(d).initializers[name].raw for d in (golden.model, flipped))
    assert np.flatnonzero(before != after).tolist() == [2]
    assert before[2] ^ after[2] == np.int8(-128)


def test_no_weight_that_matters(golden):
    golden = golden("stream_residual.streaming.esp32s3.int8")
    with pytest.raises(ConfigError, match="no weight of this model changes its outputs"):
        flip_weight(golden.model, lambda _: False)


def test_a_fault_of_a_node_acts_only_where_that_node_is(golden):
    graph = espdl.load_graph(golden(CASES[0]).model)
    assert Requantized(graph.nodes[0].name, 1).fits(graph)
    assert not Requantized("/nowhere", 1).fits(graph)
