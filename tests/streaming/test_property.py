"""Random causal networks, planned, exported and streamed: equal to offline in every element."""

from __future__ import annotations

import random

import pytest
import randomnet
from export_bench import Request
from stream_compare import compare

from espdl_hil.errors import HarnessError, UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.operators import check_graph
from espdl_hil.streaming import Severity, StreamingPlan, lint

FRAMES = 48
CHUNKS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # divisors of FRAMES
TARGETS = (("esp32s3", 8), ("esp32p4", 8), ("esp32s3", 16), ("esp32p4", 16))
SHRINK_STEPS = 40


def request_for(spec, seed):
    """Two random legal chunk sizes of a network, and the exporter's own conversion at one."""
    rng = random.Random(seed)
    legal = [chunk for chunk in CHUNKS if chunk % randomnet.total_stride(spec) == 0]
    chunks = sorted(rng.sample(legal, min(2, len(legal))))
    target, bits = rng.choice(TARGETS)
    # Not 1: a single frame broadcasts over old ones, which a tail may happen to cut off again.
    auto = [chunk for chunk in chunks if chunk > 1][:1]
    return Request(spec, [[1, 4, FRAMES]], [2], chunks, target, bits, auto=auto)


class Campaign:
    """Counts over many networks."""

    def __init__(self, export):
        self.export = export
        self.graphs = self.streams = self.elements = self.warm = self.invariant = 0
        self.uncompared = 0  # streams so short that the predicted warm-up covers them
        self.unrunnable = []
        self.cut_off = 0
        self.agreed = {True: 0, False: 0}  # auto conversions by whether they are right

    def run(self, seeds):
        """Check networks.

        Raises:
            AssertionError: one of them streams wrongly; names the smallest one found.
        """
        for seed in seeds:
            spec = randomnet.generate(seed)
            problem = self.check(spec, seed)
            if problem:
                small, problem = self.shrink(spec, problem, seed)
                raise AssertionError(f"seed {seed}: {problem}\n  smallest network: {small}")

    def check(self, spec, seed):
        """What is wrong with a network; None if nothing is."""
        request = request_for(spec, seed)
        try:
            exported = self.export(request)
        except HarnessError as error:
            return f"export failed: {error.message.strip().splitlines()[-1]}"
        if exported.refused:
            return f"refused: {next(iter(exported.refused.values()))[2]}"
        offline = load_graph(exported.offline)
        try:
            check_graph(offline, request.target)
        except UnsupportedOpError as error:  # the exporter's offline file is wrong by itself
            self.unrunnable.append((seed, error.message.splitlines()[-1]))
            return None
        self.graphs += 1
        for chunk in request.chunks:
            problem = self.check_stream(request, exported, offline, chunk)
            if problem:
                return f"chunk {chunk} on {request.target}, int{request.bits}: {problem}"
        return self.check_auto(request, exported, offline)

    def check_stream(self, request, exported, offline, chunk):
        plan = StreamingPlan.from_json(exported.plans[chunk])
        data = exported.streaming[chunk]
        try:
            result = compare(exported.offline, data, plan, request.target, seed=chunk)
        except HarnessError as error:
            return f"the streaming file does not run: {error.message}"
        self.streams += 1
        self.elements += result.elements
        self.warm += result.warm
        self.invariant += result.invariant
        if result.elements == 0 and result.varying == 0 and warms_up_forever(plan):
            self.uncompared += 1
        elif not result.equal:
            return f"{result.differing} of {result.elements} differ, first at {result.first}"
        findings = lint(load_graph(data), offline)
        if exported.findings[chunk] != [finding.to_json() for finding in findings]:
            return f"the exporter's own graph gives other findings than {findings}"
        errors = errors_of(findings)
        return f"lint calls a right file wrong: {errors[0]}" if errors else None

    def check_auto(self, request, exported, offline):
        """Lint must know whether the exporter's own conversion is right."""
        chunk = request.auto[0]
        plan = StreamingPlan.from_json(exported.plans[chunk])
        try:
            right = compare(exported.offline, exported.auto[chunk], plan, request.target).equal
        except (HarnessError, AssertionError):  # does not load, or gives another frame count
            right = False
        findings = lint(load_graph(exported.auto[chunk]), offline)
        if exported.auto_findings[chunk] != [finding.to_json() for finding in findings]:
            return f"the exporter's own graph gives other findings than {findings}"
        errors = errors_of(findings)
        if right and errors and all(alignment.kind == "tail" for alignment in plan.alignments):
            self.cut_off += 1  # frames are wrong, but the last ones do not see them
            return None
        if right == bool(errors):
            return f"auto conversion is {'right' if right else 'wrong'}, lint says {errors}"
        self.agreed[right] += 1
        return None

    def shrink(self, spec, problem, seed):
        """The smallest network with a problem that is found in a bounded number of steps."""
        tried = 0
        found = True
        while found and tried < SHRINK_STEPS:
            found = False
            for smaller in randomnet.shrink(spec):
                tried += 1
                other = self.check(smaller, seed)
                if other:
                    spec, problem, found = smaller, other, True
                    break
                if tried >= SHRINK_STEPS:
                    break
        return spec, problem

    def __str__(self):
        return (
            f"{self.graphs} graphs, {self.streams} streams, {self.elements} elements equal, "
            f"{self.warm} in predicted warm-up, {self.invariant} independent of the chunks, "
            f"{self.uncompared} streams that warm up to their end; "
            f"auto conversions told apart: {self.agreed[True]} right, {self.agreed[False]} "
            f"wrong ones, {self.cut_off} with wrong frames that a tail cuts off; "
            f"{len(self.unrunnable)} offline files that the chip cannot run"
        )


def warms_up_forever(plan):
    """Whether the plan says that nothing of this sequence can be compared."""
    return all(
        alignment.min_prefix_frames > FRAMES
        if alignment.kind == "tail"
        else alignment.warmup_frames >= alignment.offline_frames
        for alignment in plan.alignments
    )


def errors_of(findings):
    return [str(finding) for finding in findings if finding.severity is Severity.ERROR]


def test_random_networks_stream_as_offline(export, capsys):
    campaign = Campaign(export)

    campaign.run(range(42))

    with capsys.disabled():
        print(f"\n{campaign}")
    assert campaign.graphs >= 40
    assert campaign.agreed[True] > 0
    assert campaign.agreed[False] > 0


@pytest.mark.slow
def test_many_random_networks_stream_as_offline(export, capsys):
    campaign = Campaign(export)

    campaign.run(range(1000, 4100))

    with capsys.disabled():
        print(f"\n{campaign}")
        print("\n".join(f"  {seed}: {reason}" for seed, reason in campaign.unrunnable))
    assert campaign.graphs >= 3000


def test_a_wrong_plan_is_found_and_shrunk(export):
    """The check has teeth: the exporter's own conversion fails it, and a small network is named."""

    def export_auto(request):
        exported = export(request)
        exported.streaming = dict.fromkeys(request.chunks, exported.auto[request.auto[0]])
        exported.plans = dict.fromkeys(request.chunks, exported.plans[request.auto[0]])
        return exported

    campaign = Campaign(export_auto)
    spec = (8, (("conv", 3, 1, "relu"), ("res", (("dw", 3, 1, "none"),))), ("none",))

    problem = campaign.check(spec, seed=1)
    small, still = campaign.shrink(spec, problem, seed=1)

    assert problem
    assert still
    assert len(repr(small)) < len(repr(spec))
