"""Recorded vectors on a devkit: right ones pass, each of 20 seeded faults of kernels is found."""

import dataclasses
import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.cli import main
from espdl_hil.device.errors import RequestError
from espdl_hil.errors import ConfigError
from espdl_hil.proof.conformance import (
    Agreement,
    by_operator,
    evidence,
    render,
    run_vector,
    run_vectors,
)
from espdl_hil.proof.vectors import find_vectors, read_vector
from espdl_hil.simulator import build_app, faults
from espdl_hil.targets import DEVKIT_TARGETS

TESTS = Path(__file__).parents[1]
BENCH = TESTS.parent / "benchmarks"
FOLDERS = [TESTS / name for name in ("golden", "golden_chip", "unknowns")]
STAND_IN = TESTS / "device" / "qemu_stand_in.py"
MAKER = TESTS / "unknowns" / "make_vectors.py"


@pytest.fixture(scope="module")
def devices():
    """A firmware core of each target, without flash and boot."""
    sys.path.insert(0, str(BENCH))
    try:
        from campaign.device import Device
    finally:
        sys.path.remove(str(BENCH))
    made = {target: Device(target) for target in DEVKIT_TARGETS}
    yield made
    for device in made.values():
        device.__exit__()


@pytest.fixture(scope="module")
def vectors():
    """Every vector, by target."""
    return {t: [read_vector(p) for p in find_vectors(FOLDERS, t)] for t in DEVKIT_TARGETS}


def one(name):
    return read_vector(next(path for folder in FOLDERS for path in folder.glob(f"{name}.npz")))


# -- right kernels ------------------------------------------------------------------------


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_a_sound_devkit_gives_what_was_recorded(devices, vectors, target):
    verdicts = [run_vector(devices[target].session, vector) for vector in vectors[target]]
    assert [str(v) for v in verdicts if not v.passed] == []
    assert {v.name for v in verdicts if v.agreement is Agreement.REFUSED} == {
        f"shift_field_wraps.{target}.int8"
    }
    inexact = {n.operator for v in verdicts for n in v.nodes if n.agreement is Agreement.WITHIN}
    assert inexact <= {"Log", "Pow", "Exp", "Softmax", "LogSoftmax", "GRU", "LSTM"}
    assert sum(node.elements for v in verdicts for node in v.nodes) > 500_000
    table = by_operator(verdicts)
    assert {("Conv", "S8"), ("Conv", "S16"), ("GRU", "S16"), ("Resize", "S8")} <= set(table)
    assert all(counts["differs"] == 0 for counts in table.values())


# -- wrong kernels --------------------------------------------------------------------------


@dataclass(frozen=True)
class KernelFault(faults.StepFault):
    """Every node of an operator at a width, wrong in one way."""

    operator: str
    width: str
    kind: str
    seed: int

    def concerns(self, node):
        return (node.op_type, node.attributes.get("quant_type")) == (self.operator, self.width)

    def fits(self, graph):
        return any(map(self.concerns, graph.nodes))

    def computed(self, run):
        return self.changed(run.output) if self.concerns(run.node) else run.output

    def changed(self, output):
        return WRONG[self.kind](output, np.random.default_rng(self.seed))


def off_by_one(output, rng):
    """One element of about 64, by 1 LSB."""
    hit = rng.random(output.shape) < 1 / 64
    return np.where(hit, output ^ 1, output).astype(output.dtype)


def clamps_early(output, rng):
    """The largest value is never reached."""
    return np.minimum(output, np.iinfo(output.dtype).max - 1)


def wraps_at_the_top(output, rng):
    info = np.iinfo(output.dtype)
    return np.where(output == info.max, info.min, output).astype(output.dtype)


def last_channel_again(output, rng):
    """The remainder of a row of channels is not computed."""
    result = output.copy()
    result[..., -1] = result[..., 0]
    return result


def negative_floors(output, rng):
    """Some negative results are rounded down instead of to the nearest."""
    hit = (output < 0) & (rng.random(output.shape) < 1 / 8)
    lower = np.maximum(output.astype(np.int64) - 1, np.iinfo(output.dtype).min)
    return np.where(hit, lower, output).astype(output.dtype)


WRONG = {
    "off by one": off_by_one,
    "clamps early": clamps_early,
    "wraps at the top": wraps_at_the_top,
    "last channel again": last_channel_again,
    "negative floors": negative_floors,
}
DRAWS = [(target, seed) for target in DEVKIT_TARGETS for seed in range(10)]


def recorded_outputs(vector, fault):
    names = {n.outputs[0] for n in vector.graph.nodes if fault.concerns(n)}
    return [
        step[name]
        for stream in vector.streams
        for step in stream.outputs
        for name in names & {*step}
    ]


def beyond_bound(vector, fault):
    """Whether the fault changes a recorded output by more than the bound of float steps."""
    outputs = recorded_outputs(vector, fault)
    pairs = [(o.astype(np.int64), fault.changed(o).astype(np.int64)) for o in outputs if o.size]
    return max((int(np.abs(a - b).max()) for a, b in pairs), default=0) > (
        1 if fault.operator in ("GRU", "LSTM") else 0
    )


def draw(vectors, seed):
    """A fault that would change something that was recorded, and the vectors that it is in."""
    rng = np.random.default_rng(seed)
    known = sorted(
        {
            (node.op_type, str(node.attributes["quant_type"]))
            for vector in vectors
            for node in vector.graph.nodes
            if vector.graph.info(node.outputs[0]).dtype.kind == "i"
        }
    )
    while True:
        operator, width = known[rng.integers(len(known))]
        fault = KernelFault(operator, width, list(WRONG)[rng.integers(len(WRONG))], seed)
        hit = [v for v in vectors if fault.fits(v.graph) and beyond_bound(v, fault)]
        if hit:
            return fault, hit


@pytest.mark.parametrize(("target", "seed"), DRAWS)
def test_a_wrong_kernel_is_found_and_named(devices, vectors, target, seed):
    fault, hit = draw(vectors[target], seed)
    with devices[target].broken([fault]):
        verdicts = [run_vector(devices[target].session, vector) for vector in hit[:3]]
    assert not any(verdict.passed for verdict in verdicts)
    for verdict in verdicts:
        wrong = [n for n in verdict.nodes if n.agreement is Agreement.DIFFERS]
        assert wrong[0].operator == fault.operator
        assert fault.operator in str(verdict)
        assert fault.operator in render(verdicts)


def all_nodes(vector, operator):
    return tuple(node.name for node in vector.graph.nodes if node.op_type == operator)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "lane_saturates.esp32s3.int8",
            lambda v: faults.RoundsOtherwise(all_nodes(v, "Conv"), "up"),  # sums without lanes
        ),
        ("mul.esp32p4.int8", lambda v: faults.RoundsOtherwise(all_nodes(v, "Mul"), "up")),
        ("mul.esp32s3.int8", lambda v: faults.RoundsOtherwise(all_nodes(v, "Mul"), "even")),
        ("sub.esp32p4.int16", lambda v: faults.SumWrap(all_nodes(v, "Sub"))),
        ("modes_left_behind.esp32p4.int8", lambda _: faults.RoundingLost(late=True)),
        ("modes_left_behind.esp32p4.int8", lambda _: faults.MisalignedMode(late=True)),
    ],
)
def test_the_chips_own_ways_to_be_wrong_are_found(devices, name, fault):
    vector = one(name)
    with devices[vector.target].broken([fault(vector)]):
        assert run_vector(devices[vector.target].session, vector).agreement is Agreement.DIFFERS
    assert run_vector(devices[vector.target].session, vector).agreement is Agreement.EXACT


# -- what is said -----------------------------------------------------------------------------


def test_modes_that_other_code_left_are_told_though_the_firmware_put_them_right(devices):
    vector, device = one("modes_left_behind.esp32p4.int8"), devices["esp32p4"]
    with device.broken([faults.RoundingLost()]):
        verdict = run_vector(device.session, vector)
    assert verdict.agreement is Agreement.EXACT
    assert verdict.findings == (
        "vector unit: rounding mode lost before chunk 0 and 1 more; the firmware put it right",
    )
    assert f"{vector.name}: {verdict.findings[0]}" in render([verdict])


class Refusing:
    """A session with a device that refuses a model."""

    def upload(self, data, name):
        raise RequestError("no such operator", code=13, port="here", console_tail="")


def test_a_refused_vector_fails_unless_it_is_about_an_unknown():
    verdict = run_vector(Refusing(), one("mul.esp32p4.int8"))
    assert (verdict.agreement, verdict.passed) == (Agreement.REFUSED, False)
    assert "no such operator" in str(verdict)
    assert dataclasses.replace(verdict, settles="something").passed
    assert not dataclasses.replace(verdict, settles="something", error="").passed


def test_a_device_that_fails_under_one_vector_is_brought_back_for_the_next(rig):
    dut, vectors = rig.dut("esp32s3"), [one("mul.esp32s3.int8"), one("add.esp32s3.int8")]
    incidents = len(dut.incidents)
    rig.devkits["esp32s3"].inject(faults.Panic(after_bytes=0, boots=1))
    try:
        failed, sound = run_vectors(dut, vectors)
    finally:
        rig.devkits["esp32s3"].clear()
    assert (failed.agreement, failed.passed, failed.nodes) == (Agreement.FAILED, False, ())
    assert not dataclasses.replace(failed, settles="something").passed
    assert failed.error in render([failed])
    assert sound.agreement is Agreement.EXACT
    assert len(dut.incidents) > incidents


def test_evidence_says_which_device_and_what_each_vector_gave(devices):
    device = devices["esp32s3"]
    good = run_vector(device.session, one("mul.esp32s3.int8"))
    with device.broken([KernelFault("Mul", "S8", "off by one", 0)]):
        bad = run_vector(device.session, one("mul.esp32s3.int8"))
    told = json.loads(json.dumps(evidence(device.session.info, [good, bad]), allow_nan=False))
    assert told["device"]["target"] == "esp32s3"
    assert told["device"]["substrate"] == "simulated"
    assert "port" not in told["device"]
    assert told["findings"] == ["arithmetic unknown: ESP-DL none (simulated); known: 3.3.9"]
    assert [v["agreement"] for v in told["vectors"]] == ["exact", "differs"]
    assert told["vectors"][0]["inexact"] == []
    (node,) = [n for n in told["vectors"][1]["inexact"] if n["operator"] == "Mul"]
    assert (node["width"], node["bound"], node["largest"]) == ("S8", 0, 1)
    assert 0 < node["differing"] < node["elements"]


# -- what only silicon can tell ------------------------------------------------------------------


def test_the_vectors_of_unknowns_are_what_their_maker_writes():
    """So what they expect is what the interpreter gives now."""
    made = dict(runpy.run_path(str(MAKER))["vectors"]())
    assert {path.stem for path in MAKER.parent.glob("*.npz")} == set(made)
    for name, arrays in made.items():
        with np.load(MAKER.parent / f"{name}.npz") as stored:
            assert set(stored.files) == set(arrays)
            for key, array in arrays.items():
                assert np.array_equal(stored[key], array), (name, key)


def test_each_unknown_has_a_vector_that_says_so(vectors):
    settled = {vector.settles for found in vectors.values() for vector in found} - {""}
    page = (TESTS.parent / "docs" / "evidence" / "README.md").read_text()
    assert len(settled) == 5
    for unknown in settled:
        assert unknown in page


# -- the command ---------------------------------------------------------------------------------


def test_the_command_runs_vectors_and_writes_evidence(tmp_path, capsys):
    file = tmp_path / "evidence.json"
    mul = str(TESTS / "golden" / "mul.esp32p4.int8.npz")
    arguments = ["--target", "esp32p4", "--device", "sim", "--vectors", mul]
    assert main(["conformance", *arguments, "--output", str(file)]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 vectors as recorded" in out
    assert "finding" not in out
    told = json.loads(file.read_text())
    assert told["device"]["espdl_version"] == "3.3.9 (simulated)"
    assert [v["name"] for v in told["vectors"]] == ["mul.esp32p4.int8"]


def test_the_command_fails_on_what_was_recorded_otherwise(tmp_path, capsys):
    with np.load(TESTS / "golden" / "mul.esp32p4.int8.npz") as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    places = json.loads(arrays["index"].tobytes())["tensors"]
    arrays[next(key for key, place in places.items() if "/out/" in place)].flat[0] ^= 1
    np.savez(tmp_path / "mul.esp32p4.int8.npz", **arrays)
    arguments = ["--target", "esp32p4", "--device", "sim", "--vectors", str(tmp_path)]
    assert main(["conformance", *arguments]) == 1
    assert "1 of 2880 elements differ, by 1 LSB at most, allowed is 0" in capsys.readouterr().out


@pytest.fixture
def emulator(tmp_path):
    """Makes a program on which biases of Conv come out wrong, or none do."""

    def make(wrong=""):
        extra = f"sys.argv += ['-wrong', {wrong!r}]\n" if wrong else ""
        program = tmp_path / "qemu-system-xtensa"
        source = STAND_IN.read_text().replace("def main():", "def main():\n    " + extra, 1)
        program.write_text(f"#!{sys.executable}\n{source}")
        program.chmod(0o755)
        build_dir = build_app("esp32s3", tmp_path / "build")
        return ["--target=esp32s3", "--device=qemu", f"--emulator={program}"], [
            f"--app={build_dir}",
            "--vectors",
            *(str(TESTS / "golden" / f"{name}.esp32s3.int8.npz") for name in ("pc_conv1d", "mul")),
        ]

    return make


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ("", 0, "2 of 2 vectors as recorded"),
        ("tails", 0, "deviates as known: pc_conv1d.esp32s3.int8: Conv"),
        ("all", 1, "pc_conv1d.esp32s3.int8: Conv"),
    ],
)
def test_the_command_runs_them_on_an_emulated_devkit(
    emulator, tmp_path, capsys, monkeypatch, wrong, code, said
):
    monkeypatch.chdir(tmp_path)
    which, rest = emulator(wrong)
    file = tmp_path / "evidence.json"
    assert main(["conformance", *which, f"--output={file}", *rest]) == code
    out = capsys.readouterr().out
    assert said in out
    assert "emulated QEMU 0.0.0-stand-in" in out
    assert ("deviates as known" in out) == (wrong == "tails")
    assert f"{2 if not wrong else 1} of 2 vectors as recorded" in out
    told = json.loads(file.read_text())
    assert (told["device"]["substrate"], told["device"]["emulator"]) == (
        "emulated",
        "QEMU 0.0.0-stand-in",
    )
    assert bool(told["vectors"][0]["deviations"]) == (wrong == "tails")


def test_a_missing_emulator_is_one_line_that_says_how_to_install_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    mul = str(TESTS / "golden" / "mul.esp32s3.int8.npz")
    command = ["conformance", "--target", "esp32s3", "--device", "qemu", "--vectors", mul]
    assert main(command) == 2
    assert "idf_tools.py install qemu-xtensa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ("nothing", "no recorded vectors for esp32p4"),
        ("damaged.npz", "is no recorded vector"),
        (str(TESTS / "golden" / "mul.esp32s3.int8.npz"), "was recorded for esp32s3"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, monkeypatch, capsys, vectors, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "damaged.npz").write_bytes(b"PK\3\4")
    arguments = ["--target", "esp32p4", "--device", "sim", "--vectors", vectors]
    assert main(["conformance", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


def test_without_vectors_the_hint_says_where_they_are(tmp_path):
    with pytest.raises(ConfigError, match="tests/golden_chip"):
        find_vectors([], "esp32p4")
