"""A chunk and the whole sequence take different kernels on one chip: predicted, told and judged."""

import contextlib
from dataclasses import dataclass, replace

import numpy as np
import pytest

from espdl_hil.operators import OPERATORS
from espdl_hil.plugin.summary import properties
from espdl_hil.proof.case import make_cases
from espdl_hil.proof.chip_made import EDIT, OtherCode, predict
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.lint import chip_rounding, lint_model
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.run import VerificationError
from espdl_hil.proof.settings import Settings
from espdl_hil.proof.tolerances import PREDICTED
from espdl_hil.simulator import faults
from espdl_hil.streaming import Severity
from espdl_hil.targets import DEVKIT_TARGETS


@dataclass(frozen=True)
class Subject:
    """A model of which the chip computes one node otherwise in a chunk of one frame.

    Attributes:
        operator: Of that node.
        forward: The node, of ``x``.
        near: Integers of channel ``c``, of 15 bits, at which the two kernels may differ.
        how: What is said of the kernels.
        edit: What is said to avoid it, but chunks of two frames.
    """

    operator: str
    forward: str
    near: str
    how: str
    edit: str


SUBJECTS = {
    "gate": Subject(  # a chunk of one frame fills no register
        "Mul",
        "x * x",
        "q[(q > 23200) & np.isin(np.abs(q * q % 2**15 - 2**14), range(1, 32))]",
        "SIMD only offline",
        "8 channels or more there",
    ),
    "std": Subject(  # in a chunk of one frame no row has one divisor
        "Div",
        "x / self.std",
        "q[apart(q.astype('f4'), np.float32(STD[c]))]",
        "reciprocal offline, quotient in a chunk",
        "a factor of 1 / divisor there, of 8 channels or more",
    ),
}
MODEL = '''
import numpy as np

from espdl_hil import StreamingModel

STD = 18001, 20011, 23003, 27011

def build():
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("std", torch.tensor(STD)[None, :, None] * 2.0**-14)
            self.pad, self.context = nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 4, 3, bias=False)
            weight = 0.05 * torch.randn(4, 4, 3)
            weight[:, :, 2] += 0.9 * torch.eye(4)
            self.context.weight.data = weight

        def forward(self, x):
            return self.context(self.pad(FORWARD))

    return Network()

def apart(q, d):
    """Whether each chip rounds q / d and q * (1 / d) otherwise, in steps of 2**-14."""
    one, half = np.float32(2**14), np.float32(0.5)
    quotient, product = q * one / d, q * (one / d)
    on_s3 = np.floor(quotient + half) != np.floor(product + half)
    return on_s3 & (np.rint(quotient) != np.rint(product))

def stimulus(random):
    q = np.arange(1, 32600)
    near = np.stack([random.choice(NEAR, 96) for c in range(4)])[None]
    usual = random.integers(-32600, 32600, (1, 4, 96))
    return (np.where(random.random((1, 4, 96)) < 0.2, near, usual) * 2.0**-14).astype("f4")

MODEL = StreamingModel(
    name="NAME", build=build, input_shape=(1, 4, 96), frame_axis=2, chunk_frames=(1, 2),
    bits=(16,), stimulus=stimulus,
)
'''


def write_subject(folder, name):
    subject, file = SUBJECTS[name], folder / f"{name}.py"
    text = MODEL.replace("NAME", name).replace("FORWARD", subject.forward)
    file.write_text(text.replace("NEAR", subject.near))
    return file


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects")
    files = [write_subject(folder, name) for name in SUBJECTS]
    settings = Settings(report=tmp_path_factory.mktemp("report"))
    with contextlib.closing(Rig(settings, make_cases(files, DEVKIT_TARGETS))) as made:
        made.find_ports()
        made.build()
        made.prepare()
        yield made


@pytest.fixture(params=SUBJECTS)
def name(request):
    """Of a model."""
    return request.param


@pytest.fixture(params=DEVKIT_TARGETS)
def prove(rig, name, request, monkeypatch):
    """Makes a proof of the model at a chunk size under a policy."""
    target = request.param
    rig.dut(target)
    monkeypatch.setattr(rig, "_expected", {})

    def make(chunk_frames, policy):
        wanted = (target, name, chunk_frames)
        (case,) = (c for c in rig.cases if (c.target, c.model.name, c.chunk_frames) == wanted)
        model = replace(case.model, chip_rounding=policy)
        return Hil(replace(case, model=model), RowBook(rig))

    yield make
    rig.devkits[target].clear()


def row_of(proof):
    return proof._book.row(proof.case)


def test_it_fails_with_that_cause_and_an_edit_by_default(prove, name):
    subject, proof = SUBJECTS[name], prove(1, "refuse")
    made = proof.expected.chip_made
    with pytest.raises(VerificationError, match="cause     known chip behaviour") as raised:
        proof.verify()
    row = row_of(proof)
    streaming = row.checks["streaming"]
    assert (row.outcome, streaming.outcome, streaming.max_lsb) == ("failed", "failed", 1)
    assert 0 < streaming.differing < 60
    assert {c: row.checks[c].outcome for c in ("interpreter", "reference")} == {
        "interpreter": "passed",
        "reference": "passed",
    }
    predicted = [
        np.flatnonzero(a["output"] != b["output"]).tolist()
        for a, b in zip(made.whole, made.chunks, strict=True)
    ]
    cut = proof.expected.cut(proof.offline().outputs[0])
    seen = [
        np.flatnonzero(a["output"] != b["output"]).tolist()
        for a, b in zip(cut, proof.stream().outputs, strict=True)
    ]
    assert seen == predicted
    (node,) = (n for n in proof.expected.offline_graph.nodes if n.op_type == subject.operator)
    of_node = f"{subject.operator} {node.name!r}, {subject.how}"
    said = f"chip: {streaming.differing} elements, 1 LSB, {of_node}"
    edit = f"chunks of 2 frames, which have the whole's kernel; or {subject.edit}"
    assert row.details.findings == (f"{said}; what avoids it: {edit}",)
    assert dict(properties(row))["findings"].startswith(said)
    assert row.diagnosis["cause"] == "known chip behaviour"
    assert row.diagnosis["node"] == node.name
    assert f"next      {edit}; or chip_rounding='accept'" in str(raised.value)


def test_the_model_may_accept_it_and_the_row_says_so(prove, name):
    proof = prove(1, "accept")
    proof.verify()
    row = row_of(proof)
    assert row.outcome == "passed"
    (finding,) = row.details.findings
    assert finding.startswith("chip: ")
    assert f"{SUBJECTS[name].how}, accepted; " in finding
    check = row.checks["streaming"]
    assert check.tolerance == "exact; what the chip is predicted to change"
    (entry,) = [e for e in row.details.tolerances if e.allowed == PREDICTED]
    assert entry.kind == "declared"
    assert entry.used.startswith("chip: ")


@pytest.mark.parametrize("policy", ["refuse", "accept"])
def test_the_lint_says_it_beforehand(prove, name, policy):
    subject, expected = SUBJECTS[name], prove(1, policy).expected
    (finding,) = chip_rounding(expected)
    count = str(expected.chip_made).removeprefix("chip: ").split()[0]
    assert (finding.rule, finding.severity) == (
        "S305",
        Severity.ERROR if policy == "refuse" else Severity.NOTE,
    )
    assert finding.message == (
        f"the chip rounds otherwise in a chunk: {count} elements, 1 LSB, "
        f"forward ({subject.operator}), {subject.how}"
    )
    assert ('or chip_rounding="accept"' in finding.edit) == (policy == "refuse")
    assert chip_rounding(prove(2, policy).expected) == []


def test_lint_model_fails_for_it(rig, name):
    (path,) = {case.model.source for case in rig.cases if case.model.name == name}
    found = lint_model(path, "esp32s3", store=rig.settings.store).findings
    rules = {label: [(f.rule, f.severity) for f in findings] for label, findings in found.items()}
    assert ("S305", Severity.ERROR) in rules[f"{name} int16 chunk1"]
    assert "S305" not in [rule for rule, _ in rules[f"{name} int16 chunk2"]]


def test_the_edit_that_is_suggested_helps(prove):
    proof = prove(2, "refuse")
    proof.verify()
    assert proof.expected.chip_made is None
    assert row_of(proof).details.findings == ()


@pytest.mark.parametrize("policy", ["refuse", "accept"])
def test_a_fault_on_top_is_not_excused(prove, policy):
    proof = prove(1, policy)
    proof.devkit.inject(faults.StateDropped(step=2))
    with pytest.raises(VerificationError, match="cause     state dropped"):
        proof.verify()
    row = row_of(proof)
    assert (row.outcome, row.diagnosis["cause"]) == ("failed", "state dropped")


def test_one_element_of_one_lsb_on_top_is_not_excused(prove):
    proof = prove(1, "accept")
    offline, stream = proof.offline(), proof.stream()
    made = proof.expected.chip_made
    assert stream == offline
    changed = [
        np.flatnonzero(a["output"] != b["output"])
        for a, b in zip(made.whole, made.chunks, strict=True)
    ]
    chunk, places = next((chunk, places) for chunk, places in enumerate(changed) if len(places))
    wanted = made.allow(proof.expected.cut(offline.outputs[0]))
    for place in (places[0], (places[0] + 1) % 4):  # where the chip differs, and beside
        for step in (-1, 1):
            wrong = stream.outputs[chunk]["output"].copy()
            wrong.flat[place] += step
            assert not np.array_equal(wanted[chunk]["output"], wrong)
    assert np.array_equal(wanted[chunk]["output"], stream.outputs[chunk]["output"])


# -- what is predicted, on numbers ---------------------------------------------------------------

NODES = (OtherCode("Mul", "a", "SIMD", "C"), OtherCode("Mul", "b", "SIMD", "C"))


def runs_of(table):
    """Runs by the nodes that are computed alike."""
    arrays = {key: [{"y": np.array(v, np.int16)} for v in pair] for key, pair in table.items()}

    def runs(uniform):
        whole, chunk = arrays[uniform]
        return [whole], [chunk]

    return runs


def test_every_operator_with_code_by_size_has_an_edit():
    one_code = OPERATORS["Add"].by_size
    sized = {name for name, operator in OPERATORS.items() if operator.by_size is not one_code}
    assert sized == EDIT.keys()


def test_only_nodes_that_matter_are_named():
    table = {
        frozenset(): ([1, 2, 3], [1, 3, 3]),
        frozenset("ab"): ([1, 2, 3], [1, 2, 3]),
        frozenset("a"): ([1, 2, 3], [1, 2, 3]),  # b as the chip computes it: nothing
        frozenset("b"): ([1, 2, 3], [1, 3, 3]),
    }
    made = predict(NODES, runs_of(table), "edit")
    assert str(made) == "chip: 1 element, 1 LSB, Mul 'a', SIMD only offline"
    allowed = made.allow([{"y": np.array([1, 2, 4], np.int16)}])
    assert allowed[0]["y"].tolist() == [1, 3, 4]
    not_as_predicted = made.allow([{"y": np.array([1, 5, 3], np.int16)}])
    assert not_as_predicted[0]["y"].tolist() == [1, 5, 3]


def test_a_conversion_that_is_wrong_besides_is_not_predicted():
    table = {frozenset(): ([1, 2], [1, 3]), frozenset("ab"): ([1, 2], [0, 2])}
    assert predict(NODES, runs_of(table), "edit") is None


def test_nothing_differs():
    assert predict(NODES, runs_of({frozenset(): ([1, 2], [1, 2])}), "edit") is None
