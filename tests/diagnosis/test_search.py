"""A sample of the fault campaign (``benchmarks/diagnosis.py``), and what it does not cover."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.compare import Outcome, judge
from espdl_hil.diagnosis import Cause, diagnose
from espdl_hil.diagnosis.mismatch import Facts, Finding

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from faults import ALL_KINDS
from faults.device import Device, Flaw
from faults.kinds import NoPlace
from faults.subjects import golden_subjects

sys.path.pop(0)
SUBJECTS = tuple(golden_subjects())
ON_ZOO_ONLY = {
    "state binding skipped",
    "exact product",
    "halves away from zero",
    "chunk of no whole stride",
}


def diagnosed(subject, flaw, **facts):
    device = Device(subject, flaw)
    observed = device.first_run()
    case = subject.case(observed, subject.judge(observed), probe=device, facts=Facts(**facts))
    return diagnose(case)


def sample(kind, count=2):
    """Instances of a kind that change an output: what runs, and the injection."""
    rng = np.random.default_rng(list(kind.name.encode()))
    found = []
    for _ in range(80):
        subject = SUBJECTS[int(rng.integers(len(SUBJECTS)))]
        try:
            injection = kind.inject(subject, rng)
        except NoPlace:
            continue
        runs = injection.planned or subject
        device = Device(runs, injection.flaw)
        observed = device.first_run()
        verdict = runs.judge_offline(observed) if injection.planned else runs.judge(observed)
        if verdict.outcome is Outcome.FAILED:
            found.append(runs.case(observed, verdict, probe=device, facts=injection.facts))
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize(
    "kind", [k for k in ALL_KINDS if k.name not in ON_ZOO_ONLY], ids=lambda kind: kind.name
)
def test_the_cause_of_a_fault_is_named(kind):
    cases = sample(kind)
    assert cases
    for case in cases:
        found = diagnose(case)
        assert found.cause is kind.cause, found.text
        assert found.model in found.text
        assert 6 <= len(found.text.splitlines()) <= 12


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: f"{s.name}-{s.target}-int{s.bits}")
def test_a_sound_device_raises_no_alarm(subject):
    observed = Device(subject, Flaw()).first_run()
    assert subject.judge(observed).outcome is Outcome.PASSED
    assert subject.judge_offline(observed).outcome is Outcome.PASSED


class Noise(Flaw):
    """A node that computes nonsense, each time the same."""

    def __init__(self, name):
        self.name = name

    def node(self, chunk, node, inputs, output, before):
        if node.name != self.name:
            return output
        noise = np.random.default_rng(chunk).integers(-60, 60, output.shape)
        return noise.astype(output.dtype)


def test_what_nothing_reproduces_is_said_to_be_unexplained_and_placed():
    found = diagnosed(SUBJECTS[0], Noise("/c/Conv"))
    assert found.cause is Cause.UNEXPLAINED
    assert (found.place.operator, found.place.node, found.place.chunk) == ("Conv", "/c/Conv", 0)
    assert "no other rounding, exponent, limit, constant or state reproduces them" in found.text


def test_other_bytes_on_the_device_are_a_stale_artifact():
    found = diagnosed(
        SUBJECTS[0], Noise("/c/Conv"), expected_sha256="a" * 64, observed_sha256="b" * 64
    )
    assert found.cause is Cause.STALE
    assert (
        "the device runs a model with hash bbbbbbbbbbbbbbbb, this test flashed aaaaaaaaaaaaaaaa"
        in found.text
    )


def test_without_a_device_the_outputs_still_tell(subjects):
    subject = subjects["stack-chunk4.esp32s3.int8"]
    order = [0, 1, 3, 2, *range(4, len(subject.chunks))]
    swapped = replace(subject, chunks=tuple(subject.chunks[i] for i in order))
    observed = Device(swapped, Flaw()).first_run()
    found = diagnose(subject.case(observed, subject.judge(observed)))
    assert found.cause is Cause.ORDER
    assert "chunks run in the order 1 3 2 4 5 instead of 1 2 3 4 5" in found.text


def test_a_ragged_last_chunk_is_no_difference(subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    observed = Device(subject, Flaw()).first_run()
    observed[-1] = {name: values[:, :1] for name, values in observed[-1].items()}
    sound = diagnose(subject.case(observed, subject.judge(observed)))
    assert sound.place.chunk is None
    observed[-1]["41"] = observed[-1]["41"] ^ np.int8(1)
    case = subject.case(observed, subject.judge(observed), probe=Device(subject, Flaw()))
    assert diagnose(case).place.chunk == len(observed) - 1


def test_a_right_stream_against_a_wrong_offline_run_is_not_blamed(subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    observed = Device(subject, Flaw()).first_run()
    wrong = [{"41": step["41"] ^ np.int8(1)} for step in observed]
    verdict = judge(wrong, observed, frame_axes={"41": 1})
    found = diagnose(subject.case(observed, verdict))
    assert found.cause is Cause.UNEXPLAINED
    assert "the device's own offline run must be wrong" in found.text
    assert found.text.endswith("next      compare the device's offline run with the interpreter's")


def test_the_exact_weight_is_named(subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    stored = subject.graph.initializers["o.weight"]
    raw = stored.raw.copy()
    raw[5 * 24 + 7] ^= 0x40  # 10 channels: no SIMD block, so plain order

    class Flipped(Flaw):
        def artifact(self, graph):
            return replace(
                graph, initializers={**graph.initializers, "o.weight": replace(stored, raw=raw)}
            )

    found = diagnosed(subject, Flipped())
    assert found.cause is Cause.WEIGHTS
    assert found.explanation.evidence[0].startswith(
        f"o.weight [n=5, h=0, w=0, c=7] is {raw[127]}, not {stored.raw[127]}, one bit flipped: "
        "reproduces all 480 elements"
    )


def test_a_finding_of_lint_names_the_rule(subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    kind = next(k for k in ALL_KINDS if k.name == "two calibrations")
    planned = kind.inject(subject, np.random.default_rng(3)).planned
    observed = Device(planned, Flaw()).first_run()
    verdict = planned.judge_offline(observed)
    node = diagnose(planned.case(observed, verdict)).place.node
    findings = (
        Finding("S999", "/elsewhere", "not this one"),
        Finding("S120", node, "4 frames a chunk, total stride 8", "use 8"),
    )
    found = diagnose(planned.case(observed, verdict, facts=Facts(findings=findings)))
    assert found.cause is Cause.PHASE
    assert "cause     stride phase [S120]" in found.text
    assert found.text.endswith("next      use 8")


def test_a_chunk_of_no_whole_stride_is_a_matter_of_phase(subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    kind = next(k for k in ALL_KINDS if k.name == "operand delayed")
    planned = kind.inject(subject, np.random.default_rng(3)).planned
    strided = replace(planned, offline=replace(planned.offline, total_stride=2))
    observed = Device(strided, Flaw()).first_run()
    found = diagnose(strided.case(observed, strided.judge_offline(observed)))
    assert found.cause is Cause.PHASE
    assert "3 frames a chunk are no multiple of the total stride 2" in found.text
