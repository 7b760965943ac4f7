"""What a chip computes otherwise by design is no failure, and no licence."""

from __future__ import annotations

import numpy as np
import pytest
from seeding import EVERY, off_by_one, seed

from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.reference import ReferenceRecord, judge
from espdl_hil.targets import Target

LANES = ("conv1d_lane_k5", "conv2d_lane_k3", "dwconv1d_lane_k64", "gemm_lane")


@pytest.fixture
def portable(golden_chip, monkeypatch):
    """A golden file, an input, and what the portable kernels give: for the reference's values."""

    def read(name):
        model, index, arrays = golden_chip(name)
        graph = load_graph(model)
        feeds = {n: arrays[f"s0/t0/in/{n}"] for n in index["inputs"]}
        with monkeypatch.context() as patch:
            patch.setattr(Target, "simd", False)
            execution = load(graph, index["target"])
            execution.step(feeds)
        values = {n: value.copy() for n, value in execution.trace.items()}
        return graph, index["target"], feeds, values

    return read


@pytest.mark.parametrize("name", LANES)
def test_what_lanes_saturate_is_known_and_counted(portable, name):
    graph, target, feeds, values = portable(f"{name}.esp32s3.int8")

    judged = judge(graph, target, ReferenceRecord(values, {}, {}), feeds)

    assert all(node.within for node in judged), list(map(str, judged))
    assert sum(node.excused for node in judged) > 0
    assert any("elements by 20-bit lanes" in str(node) for node in judged)


@pytest.mark.parametrize("name", LANES)
def test_a_fault_beside_the_lanes_is_found(portable, name, monkeypatch):
    graph, target, feeds, values = portable(f"{name}.esp32s3.int8")
    node = next(n for n in graph.nodes if n.op_type in ("Conv", "Gemm"))

    def in_the_chips_kernel(bound, operator):
        return off_by_one(bound, operator) if bound.target.simd else operator.build(bound)

    seed(monkeypatch, node, in_the_chips_kernel)
    judged = judge(graph, target, ReferenceRecord(values, {}, {}), feeds)

    assert [found.node for found in judged if not found.within] == [node.name]


@pytest.mark.parametrize("name", LANES)
def test_a_file_that_means_something_else_is_found_behind_lanes(portable, name):
    graph, target, feeds, values = portable(f"{name}.esp32s3.int8")
    node = next(n for n in graph.nodes if n.op_type in ("Conv", "Gemm"))
    output = values[node.outputs[0]].reshape(-1)
    output[::EVERY] += np.where(output[::EVERY] == 127, -1, 1).astype(np.int8)

    judged = judge(graph, target, ReferenceRecord(values, {}, {}), feeds)

    assert node.name in [found.node for found in judged if not found.within]


@pytest.mark.parametrize("name", ["prelu_aligned", "prelu_tail"])
def test_a_product_that_is_shifted_and_not_rounded(portable, name):
    graph, target, feeds, values = portable(f"{name}.esp32s3.int16")
    (node,) = (n for n in graph.nodes if n.op_type == "PRelu")
    x = values.get(node.inputs[0], feeds.get(node.inputs[0])).astype(np.float64)
    slopes = graph.initializers[node.inputs[1]]
    result = node.outputs[0]
    shift = graph.info(node.inputs[0]).exponent - graph.info(result).exponent
    slope = np.ldexp(slopes.array.reshape(-1).astype(np.float64), slopes.info.exponents[0])
    real = np.ldexp(np.where(x < 0, x * slope, x), shift)
    rounded = np.floor(real + 0.5).clip(-(2**15), 2**15 - 1).astype(np.int16)
    record = ReferenceRecord({result: rounded}, {result: (real - rounded).astype(np.float32)}, {})

    (judged,) = judge(graph, target, record, feeds)

    assert judged.within, str(judged)
    assert judged.differing > 0
    wrong = ReferenceRecord({result: rounded + np.int16(1)}, record.rests, {})
    assert not judge(graph, target, wrong, feeds)[0].within


def test_what_the_reference_has_not_is_not_judged(portable):
    graph, target, feeds, values = portable(f"{LANES[0]}.esp32s3.int8")
    name = graph.nodes[-1].outputs[0]

    for changed in ({}, {name: values[name].reshape(-1)[:-1]}):
        record = ReferenceRecord({n: v for n, v in values.items() if n != name} | changed, {}, {})
        assert name not in [node.tensor for node in judge(graph, target, record, feeds)]
