"""What puts a row in doubt: told on the row, on the page and in JUnit."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from espdl_hil.device.tensors import StepResult, VectorUnit
from espdl_hil.plugin.summary import properties
from espdl_hil.proof.case import make_cases
from espdl_hil.proof.findings import arithmetic_findings, vector_unit_findings
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.run import VerificationError
from espdl_hil.proof.settings import Settings
from espdl_hil.report import Row, render_table, validate_results
from espdl_hil.simulator import application, faults
from espdl_hil.streaming import Finding, Severity
from espdl_hil.targets import KNOWN_ESPDL_VERSIONS

FIRMWARE = Path(__file__).parents[2] / "firmware"


@pytest.fixture(scope="module")
def p4(model_file, tmp_path_factory):
    """The small model on a P4."""
    file = tmp_path_factory.mktemp("p4") / "residual.py"
    file.write_text(model_file.read_text().replace("esp32s3", "esp32p4"))
    settings = Settings(report=tmp_path_factory.mktemp("report"))
    with contextlib.closing(Rig(settings, make_cases([file], ["esp32p4"]))) as rig:
        rig.find_ports()
        rig.build()
        rig.prepare()
        yield rig


@pytest.fixture
def on_p4(p4):
    p4.dut("esp32p4")
    yield Hil(p4.cases[0], RowBook(p4))
    p4.devkits["esp32p4"].clear()


def row_of(proof) -> Row:
    return proof._book.row(proof.case)


# -- the version of the arithmetic ----------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.3.15", "ESP-DL 3.3.15"),
        ("3.4.0", "ESP-DL 3.4.0"),
        ("3.3.9-rc1", "ESP-DL 3.3.9-rc1"),
        ("none (simulated)", "ESP-DL none (simulated)"),
        ("", "the device reports no version of ESP-DL"),
    ],
)
def test_an_unknown_version_is_a_finding(version, said):
    assert arithmetic_findings(version) == (f"arithmetic unknown: {said}; known: 3.3.9",)


@pytest.mark.parametrize("version", ["3.3.9", "3.3.9 (simulated)"])
def test_a_known_version_is_none(version):
    assert arithmetic_findings(version) == ()


@pytest.mark.parametrize("version", ["3.3.15", "3.4.0", ""])
def test_the_row_of_a_device_with_other_arithmetic_says_so(on_p4, monkeypatch, version):
    dut = on_p4.dut
    with monkeypatch.context() as patch:
        patch.setattr(application, "ESPDL_VERSION", version)
        dut.reset()
        on_p4.verify()
    dut.reset()
    row = row_of(on_p4)
    assert row.details.findings == arithmetic_findings(version) != ()
    assert dict(properties(row))["findings"].startswith("arithmetic unknown: ")
    results = on_p4._book.results
    validate_results(results.to_json())
    assert f"{arithmetic_findings(version)[0]}" in json.dumps(results.to_json())


def test_a_devkit_that_says_what_it_simulates_has_no_finding(on_p4):
    on_p4.verify()
    assert row_of(on_p4).details.findings == ()
    assert dict(properties(row_of(on_p4)))["findings"] == ""


@pytest.mark.parametrize(
    ("rule", "severity", "said"),
    [
        ("S403", Severity.NOTE, True),
        ("S404", Severity.NOTE, True),
        ("S301", Severity.WARNING, True),
        ("S303", Severity.NOTE, False),  # latency is no doubt
    ],
)
def test_what_the_lint_doubts_reaches_row_table_and_json(
    proof, book, monkeypatch, rule, severity, said
):
    found = Finding(rule, severity, "", "a channel stands still", "", "move it")
    artifacts = book.rig.expected(proof.case).artifacts
    monkeypatch.setitem(artifacts.lint, proof.case.chunk_frames, [found])
    assert proof.accuracy()
    text = f"{rule} a channel stands still"
    assert (text in book.row(proof.case).details.findings) == said
    assert (text in json.dumps(book.results.to_json())) == said
    stream = io.StringIO()
    render_table(book.results, Console(file=stream, width=200))
    assert (f"finding on 1 row of residual: {text}" in stream.getvalue()) == said


def test_the_firmware_pins_a_version_that_is_known():
    manifest = (FIRMWARE / "main" / "idf_component.yml").read_text()
    pins = [f'espressif/esp-dl: "=={version}"' for version in KNOWN_ESPDL_VERSIONS]
    assert any(pin in manifest for pin in pins)


# -- modes of the vector unit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.RoundingLost(), "rounding mode lost"),
        (faults.MisalignedMode(), "misaligned-load mode"),
    ],
)
def test_what_another_task_leaves_is_put_right_and_told(on_p4, fault, said):
    on_p4.devkit.inject(fault)
    on_p4.verify()  # every element is right
    assert row_of(on_p4).details.findings == (
        f"vector unit: {said} before chunk 0 and 3 more; the firmware put it right",
        f"vector unit: {said} before chunk 0; the firmware put it right",
    )


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (faults.RoundingLost(late=True), "rounding mode lost"),
        (faults.MisalignedMode(late=True), "misaligned-load mode"),
    ],
)
def test_a_task_that_interrupts_the_model_is_the_cause(on_p4, fault, cause):
    on_p4.devkit.inject(fault)
    with pytest.raises(VerificationError, match=f"cause     {cause}"):
        on_p4.verify()
    row = row_of(on_p4)
    assert row.diagnosis["cause"] == cause
    assert row.details.findings[0] == (
        f"vector unit: {cause} while chunk 0 and 3 more ran; their values may be wrong"
    )


def test_the_s3_has_no_such_modes(proof, book):
    proof.devkit.inject(faults.RoundingLost(late=True))
    proof.devkit.inject(faults.MisalignedMode())
    proof.verify()
    assert book.row(proof.case).details.findings == ()


def test_steps_are_grouped_by_what_was_found():
    def step(unit=None):
        return StepResult({}, None, {}, None, suspect=False, vector_unit=unit)

    both, late = VectorUnit(True, True, False), VectorUnit(True, False, True)
    assert vector_unit_findings([step(), step(both), step(), step(late)]) == (
        "vector unit: rounding mode lost and misaligned-load mode before chunk 1; "
        "the firmware put it right",
        "vector unit: rounding mode lost while chunk 3 ran; their values may be wrong",
    )
    assert vector_unit_findings([step(), step()]) == ()
