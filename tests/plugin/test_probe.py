"""Looking into a device over the wire: a simulated devkit computes wrongly, the node is named."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil import interpreter
from espdl_hil.compare import compare_streams
from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.diagnosis import Cause
from espdl_hil.diagnosis.replay import HostRun, digest
from espdl_hil.espdl import load_graph
from espdl_hil.proof.explain import explain, mismatch_of
from espdl_hil.proof.probe import DeviceProbe
from espdl_hil.simulator import Devkit, build_app
from espdl_hil.simulator.faults import (
    LutEntry,
    OutputUnwritten,
    SaturationWrap,
    StateDropped,
    StateKept,
    WeightBit,
    WrongRounding,
    WrongShift,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "stream_stack.streaming.esp32s3.int8.npz"


@pytest.fixture(scope="module")
def artifact():
    """Bytes of a streaming model and its stimulus."""
    with np.load(GOLDEN) as file:
        index = json.loads(file["index"].tobytes())
        tensors = {path: file[key] for key, path in index["tensors"].items()}
    name = index["inputs"][0]
    chunks = [{name: tensors[f"s0/t{n}/in/{name}"]} for n in range(index["streams"][0]["steps"])]
    return tensors["model"].tobytes(), chunks


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A devkit and the device on it."""
    build_dir = build_app("esp32s3", tmp_path_factory.mktemp("app"))
    with Devkit("esp32s3") as devkit, Dut(DutConfig("esp32s3", build_dir, devkit.url)) as dut:
        yield devkit, dut


@contextlib.contextmanager
def loaded(dut, data):
    model = dut.session.upload(data)
    yield model
    model.unload()


def run(bench, artifact, *faults, dirty=False):
    """Stream with faults, then diagnose as the product does."""
    devkit, dut = bench
    data, chunks = artifact
    graph = load_graph(data)
    for fault in faults:
        devkit.inject(fault)
    try:
        with loaded(dut, data) as model:
            if dirty:
                model.stream(chunks, reset=True)
            steps = model.stream(chunks, reset=True)
        observed = [step.outputs for step in steps]
        axes = {info.name: 1 for info in graph.outputs}
        expected = HostRun(graph, "esp32s3", {}).run(chunks)
        verdict = compare_streams(expected, observed, frame_axes=axes)
        mismatch = mismatch_of(
            SimpleNamespace(model=SimpleNamespace(name="stack"), target="esp32s3", bits=8),
            SimpleNamespace(
                state={}, alignments=[SimpleNamespace(output=name, frame_axis=1) for name in axes]
            ),
            verdict,
            graph=graph,
            streaming=True,
            chunks=chunks,
            observed=observed,
            steps=steps,
        )
        return verdict, explain(mismatch, loaded(dut, data))
    finally:
        devkit.clear()


def test_digests_and_values_are_those_of_the_interpreter(bench, artifact):
    data, chunks = artifact
    model = bench[1].session.upload(data)
    probe = DeviceProbe(model, chunks)
    session = interpreter.load(data, "esp32s3")
    names = [*session.trace, "no such tensor"]
    digests, values = probe.digests(names, 3), probe.values(names, 3)
    for chunk in range(3):
        session.step(chunks[chunk])
        assert digests[chunk].seen == {n: digest(t) for n, t in session.trace.items()}
        assert all(np.array_equal(values[chunk].seen[n], t) for n, t in session.trace.items())
    model.unload()


def test_a_sound_device_raises_no_alarm(bench, artifact):
    verdict, found = run(bench, artifact)
    assert verdict.outcome == "passed"
    assert found.cause is Cause.UNEXPLAINED
    assert "device and interpreter agree in every element" in found.text


@pytest.mark.parametrize(
    ("fault", "cause", "node"),
    [
        (WeightBit("a.c.weight", 100, 6), Cause.WEIGHTS, "/a/c/Conv"),
        (WeightBit("c.bias", 3, 10), Cause.WEIGHTS, "/c/Conv"),
        (WrongShift("/b/c/Conv", 1), Cause.EXPONENT, "/b/c/Conv"),
        (SaturationWrap("/d/c/Conv"), Cause.SATURATION, "/d/c/Conv"),
        (LutEntry("/Sigmoid_1", 130, 32), Cause.LUT, "/Sigmoid_1"),
        (WrongRounding(), Cause.ROUNDING, None),
        (StateDropped(3), Cause.DROPPED, "x.1_/a/c/Conv_SCache"),
        (StateDropped(), Cause.DROPPED, "x.1_/a/c/Conv_SCache"),
        (OutputUnwritten("108", 4), Cause.UNWRITTEN, "/AveragePool"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | Cause) else str(value),
)
def test_a_fault_is_detected_and_its_cause_and_node_are_named(bench, artifact, fault, cause, node):
    verdict, found = run(bench, artifact, fault)
    assert verdict.outcome == "failed"
    assert found.cause is cause, found.text
    assert node is None or found.place.node == node
    assert len(found.text.splitlines()) <= 12


def test_a_reset_that_does_nothing_is_found(bench, artifact):
    verdict, found = run(bench, artifact, StateKept(), dirty=True)
    assert verdict.outcome == "failed"
    assert found.cause is Cause.NOT_RESET, found.text
    assert found.place.operator == "StreamingCache"
    assert found.place.chunk == 0
