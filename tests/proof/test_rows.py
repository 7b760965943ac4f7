"""What a row says of the arithmetic of the device that it ran on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from espdl_hil.proof.rows import RowBook
from espdl_hil.targets import ESPDL_VERSIONS, arithmetic_finding

FIRMWARE = Path(__file__).parents[2] / "firmware"


def noted(version):
    """The findings of a row after a run on a device with *version*."""
    info = SimpleNamespace(
        **dict.fromkeys(("target", "kind", "chip", "port", "app_sha256", "boot_nonce"), "x"),
        revision=2,
        espdl_version=version,
    )
    rig = SimpleNamespace(
        cases=(),
        settings=SimpleNamespace(device="sim"),
        dut=lambda target: SimpleNamespace(info=info),
    )
    case = SimpleNamespace(id="row", target="x", model=SimpleNamespace(source=None))
    book = RowBook(rig)
    book.note_run(case, SimpleNamespace(model="offline", sha256="", latency_us=()))
    return book.record(case).findings


def test_known_kernels_need_no_finding():
    assert noted("3.3.9") == ()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.3.15", "reports ESP-DL 3.3.15"),
        ("3.4.0", "reports ESP-DL 3.4.0"),
        ("", "reports no version of ESP-DL"),
    ],
)
def test_unknown_kernels_are_a_finding_on_the_row(version, said):
    (finding,) = noted(version)
    assert finding.startswith("arithmetic unknown: the device ")
    assert said in finding
    assert "knows the kernels of 3.3.9" in finding
    assert finding == arithmetic_finding(version)


def test_the_firmware_pins_what_is_known():
    manifest = (FIRMWARE / "main" / "idf_component.yml").read_text()
    assert [f'espressif/esp-dl: "=={version}"' in manifest for version in ESPDL_VERSIONS] == [True]
