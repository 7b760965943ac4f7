"""What the product feeds a diagnosis with."""

from types import SimpleNamespace

import numpy as np

from espdl_hil.compare import Tolerance, compare_streams
from espdl_hil.device.tensors import StepResult, Unwritten
from espdl_hil.proof.explain import mismatch_of
from espdl_hil.proof.probe import DeviceProbe, canary_remarks

CASE = SimpleNamespace(model=SimpleNamespace(name="tcn"), target="esp32s3", bits=8)
PLAN = SimpleNamespace(
    alignments=[
        SimpleNamespace(output="y", frame_axis=1),
        SimpleNamespace(output="class", frame_axis=-1),
    ],
    state={"h_in": "h_out"},
    latency_frames=2,
    warmup_frames=3,
)
GRAPH = SimpleNamespace(outputs=[SimpleNamespace(name=name) for name in ("y", "class")])
VERDICT = compare_streams([], [], frame_axes={})


def step(**changes):
    known = {"outputs": {}, "latency_us": None, "watched": {}, "unwritten": None, "suspect": False}
    return StepResult(**{**known, **changes})


def mismatch(**changes):
    known = {"graph": GRAPH, "streaming": True, "chunks": [{}], "observed": [{}]}
    return mismatch_of(CASE, PLAN, VERDICT, **{**known, **changes})


def test_a_stream_against_the_interpreter():
    found = mismatch()
    assert (found.model, found.target, found.bits) == ("tcn", "esp32s3", 8)
    assert found.frame_axes == {"y": 1, "class": None}
    assert found.state == {"h_in": "h_out"}
    assert found.offline is None
    assert found.unwritten == {}


def test_a_stream_against_the_offline_model():
    graph, whole = object(), {"x": np.zeros(3)}
    found = mismatch(offline=(graph, whole), tolerance=Tolerance(max_lsb=1))
    assert (found.offline.graph, found.offline.inputs) == (graph, whole)
    assert (found.offline.latency_frames, found.offline.warmup_frames) == (2, 3)
    assert found.tolerance.max_lsb == 1


def test_the_offline_run_has_no_state():
    assert mismatch(streaming=False).state == {}


def test_what_the_canary_says_is_kept_by_step():
    one, several = Unwritten(1, "y", 0, 64), Unwritten(3, "y", 8, 16)
    steps = [step(), step(unwritten=one), step(suspect=True), step(unwritten=several)]
    remarks = {
        1: "64 bytes of output y from byte 0 were not written",
        2: "an output under 16 bytes still holds the canary",
        3: "16 bytes of output y from byte 8 were not written, and 2 other outputs",
    }
    assert canary_remarks(steps) == remarks
    assert mismatch(steps=steps).unwritten == remarks


class FakeModel:
    """Notes what it is asked to run, and gives the names that are watched."""

    def __init__(self, tensors):
        self.calls, self.tensors, self.watched = [], tensors, ()

    def describe(self):
        return SimpleNamespace(inputs=[SimpleNamespace(name="x")], outputs=[])

    def intermediates(self):
        return self.tensors

    def watch(self, names, *, digests=False):
        self.watched = tuple(names)

    def stream(self, chunks, *, reset):
        assert reset
        self.calls.append((len(chunks), len(self.watched)))
        return [step(watched=dict.fromkeys(self.watched, i)) for i in range(len(chunks))]


def test_a_probe_looks_at_a_model_that_has_run_before_in_batches():
    model = FakeModel({f"t{i}": None for i in range(40)})
    probe = DeviceProbe(model, [{}] * 5)
    names = ["x", *model.tensors, "not of this model"]
    looks = probe.digests(names, 3)
    assert model.calls == [(5, 0), (3, 32), (3, 9)]
    assert [look.seen for look in looks] == [dict.fromkeys(names[:-1], i) for i in range(3)]
    assert model.watched == ()
    probe.values(["x"], 3)
    assert model.calls[3:] == [(3, 1)]  # it has run by now
