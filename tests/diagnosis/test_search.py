"""A sample of the fault campaign (``benchmarks/diagnosis.py``), and what it does not cover."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.compare import Outcome, compare_streams
from espdl_hil.device.errors import RequestError
from espdl_hil.diagnosis import Cause
from espdl_hil.errors import DeviceError
from espdl_hil.proof.explain import explain
from espdl_hil.simulator import faults
from espdl_hil.targets import DEVKIT_TARGETS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from campaign.device import Device
from campaign.kinds import KINDS, NoPlace, Trial
from campaign.subjects import golden_subjects
from diagnosis import observe, run

sys.path.pop(0)
SUBJECTS = tuple(golden_subjects())
ON_ZOO_ONLY = {"state binding skipped", "exact product", "halves away from zero"}


@pytest.fixture(scope="module")
def devices():
    with contextlib.ExitStack() as stack:
        yield {target: stack.enter_context(Device(target)) for target in DEVKIT_TARGETS}


def observed_on(device, subject, trial=Trial()):  # noqa: B008 - it is frozen
    return [step.outputs for step in observe(device, subject, trial)]


def diagnosed(devices, subject, *broken):
    device = devices[subject.target]
    with device.broken(broken):
        observed = observed_on(device, subject)
        mismatch = subject.mismatch(observed, subject.compare(observed))
        return explain(mismatch, subject.loaded(device))


def sample(devices, kind, count=2):
    """Results of a kind that change an output."""
    rng = np.random.default_rng(list(kind.name.encode()))
    found = []
    for _ in range(80):
        subject = SUBJECTS[int(rng.integers(len(SUBJECTS)))]
        try:
            result = run(devices[subject.target], kind, subject, kind.draw(subject, rng))
        except (NoPlace, RequestError):
            continue
        found += [result] if result is not None else []
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k.name not in ON_ZOO_ONLY], ids=lambda kind: kind.name
)
def test_the_cause_of_a_fault_is_named(devices, kind):
    results = sample(devices, kind)
    assert results
    for result in results:
        assert result.detected
        found = result.diagnosis
        assert found.cause is kind.cause, found.text
        assert found.model in found.text
        assert 6 <= len(found.text.splitlines()) <= 12


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: f"{s.name}-{s.target}-int{s.bits}")
def test_a_sound_device_raises_no_alarm(devices, subject):
    observed = observed_on(devices[subject.target], subject)
    assert subject.compare(observed).outcome is Outcome.PASSED
    assert subject.compare_offline(observed).outcome is Outcome.PASSED


def test_every_cause_but_three_is_reached_by_the_campaign():
    """An export that lint passes and that is wrong all the same: see test_export_fault; an
    emulator: see test_deviation; a chip's own making: see tests/proof/test_chip_made.py.
    """
    reached = {kind.cause for kind in KINDS}
    assert set(Cause) - reached == {
        *(Cause.EXPORT, Cause.EMULATOR, Cause.CHIP, Cause.UNEXPLAINED),
    }


@dataclass(frozen=True)
class Noise(faults.StepFault):
    """A node that computes nonsense, each time the same."""

    node: str

    def computed(self, run):
        if run.node.name != self.node:
            return run.output
        noise = np.random.default_rng(run.step).integers(-60, 60, run.output.shape)
        return noise.astype(run.output.dtype)


def test_what_nothing_reproduces_is_said_to_be_unexplained_and_placed(devices):
    found = diagnosed(devices, SUBJECTS[0], Noise("/c/Conv"))
    assert found.cause is Cause.UNEXPLAINED
    assert (found.place.operator, found.place.node, found.place.chunk) == ("Conv", "/c/Conv", 0)
    assert "no other rounding, exponent, limit, constant or state reproduces them" in found.text


def test_without_a_device_the_outputs_still_tell(devices, subjects):
    subject = subjects["stack-chunk4.esp32s3.int8"]
    order = (0, 1, 3, 2, *range(4, len(subject.chunks)))
    observed = observed_on(devices["esp32s3"], subject, Trial(order=order))
    found = explain(subject.mismatch(observed, subject.compare(observed)), None)
    assert found.cause is Cause.ORDER
    assert "chunks run in the order 1 3 2 4 5 instead of 1 2 3 4 5" in found.text


def test_a_device_that_fails_under_the_probe_leaves_what_its_outputs_tell(devices, subjects):
    @contextlib.contextmanager
    def lost():
        raise DeviceError("the port is gone", port="here")
        yield

    subject = subjects["stack-chunk4.esp32s3.int8"]
    order = (0, 1, 3, 2, *range(4, len(subject.chunks)))
    observed = observed_on(devices["esp32s3"], subject, Trial(order=order))
    found = explain(subject.mismatch(observed, subject.compare(observed)), lost())
    assert found.cause is Cause.ORDER
    assert found.explanation.facts[-1] == (
        "the device failed while it was looked into: here: the port is gone"
    )


def test_a_ragged_last_chunk_is_no_difference(devices, subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    observed = observed_on(devices["esp32s3"], subject)
    observed[-1] = {name: values[:, :1] for name, values in observed[-1].items()}
    sound = explain(subject.mismatch(observed, subject.compare(observed)), None)
    assert sound.place.chunk is None
    observed[-1]["41"] = observed[-1]["41"] ^ np.int8(1)
    mismatch = subject.mismatch(observed, subject.compare(observed))
    assert explain(mismatch, subject.loaded(devices["esp32s3"])).place.chunk == len(observed) - 1


def test_a_right_stream_against_a_wrong_offline_run_is_not_at_fault(devices, subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    observed = observed_on(devices["esp32s3"], subject)
    wrong = [{"41": step["41"] ^ np.int8(1)} for step in observed]
    verdict = compare_streams(wrong, observed, frame_axes={"41": 1})
    found = explain(subject.mismatch(observed, verdict), None)
    assert found.cause is Cause.UNEXPLAINED
    assert "the device's own offline run must be wrong" in found.text
    assert found.text.endswith("next      compare the device's offline run with the interpreter's")


def test_the_exact_weight_is_named(devices, subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    stored = subject.graph.initializers["o.weight"].raw
    element = 5 * 24 + 7  # 10 channels: no SIMD block, so plain order
    found = diagnosed(devices, subject, faults.WeightBit("o.weight", element, 6))
    assert found.cause is Cause.WEIGHTS
    assert found.explanation.facts[0].startswith(
        f"o.weight [n=5, h=0, w=0, c=7] is {stored[element] ^ 0x40}, not {stored[element]}, "
        "one bit flipped: reproduces all 480 elements"
    )


def test_the_canary_is_quoted(devices, subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    device = devices["esp32s3"]
    with device.broken([faults.OutputUnwritten("41", 2)]):
        steps = observe(device, subject, Trial())
    observed = [step.outputs for step in steps]
    mismatch = subject.mismatch(observed, subject.compare(observed), steps)
    found = explain(mismatch, subject.loaded(device))  # by then the device is sound
    assert (found.cause, found.place.chunk) == (Cause.UNWRITTEN, 2)
    assert "the device's canary in chunk 2: 30 bytes of output 41 from byte 0 were not written" in (
        found.text
    )
    without = explain(replace(mismatch, unwritten={}), subject.loaded(device))
    assert without.cause is not Cause.UNWRITTEN
