from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from espdl_hil.compare import EXACT, Fidelity, Outcome, compare_streams
from espdl_hil.report import Accuracy, Check, Commit, Details, Device, Incident, Results, Row, worst

DATE = "2026-11-25T12:00:00+00:00"


def stream(seed=0):
    rng = np.random.default_rng(seed)
    return [{"y": rng.integers(-90, 90, (1, 3, 5)).astype(np.int8)} for _ in range(4)]


def compare(spoil=lambda observed: None):
    """A verdict and its check; *spoil* changes what was observed."""
    expected, observed = stream(), stream()
    spoil(observed)
    verdict = compare_streams(expected, observed, frame_axes={"y": 1})
    return verdict, Check.of(verdict, elements=60, tolerance=EXACT)


@pytest.fixture
def make_row():
    """Build a row; *spoil* changes what was observed, *spoilt* names the checks it is for."""

    def make(spoil=lambda observed: None, spoilt=("streaming",), **fields):
        checks, per_chunk = {}, {}
        for name in ("streaming", "interpreter"):
            verdict, checks[name] = compare(spoil if name in spoilt else lambda observed: None)
            per_chunk[name] = verdict.chunks
        fidelity = Fidelity.of(stream()[0]["y"], stream()[0]["y"] * 1.01)
        details = fields.pop("details", Details(alignment=("y: 3 frames a chunk",)))
        fields = {
            "id": "esp32s3-tcn-int8-chunk3",
            "target": "esp32s3",
            "model": "tcn",
            "bits": 8,
            "chunk_frames": 3,
            "substrate": "simulated",
            "outcome": worst([check.outcome for check in checks.values()]),
            "chunks": 4,
            "frames": 12,
            "checks": checks,
            "accuracy": Accuracy(Outcome.PASSED, 40.0, 40.0, 10.0, {"y": 40.0}),
            "sqnr_db": fidelity.sqnr_db,
            "cosine": fidelity.cosine,
            "artifacts": {"chunk3.espdl": "ab" * 32},
            "details": replace(details, per_chunk=details.per_chunk or per_chunk),
            **fields,
        }
        return Row(**fields)

    return make


def one_element(observed):
    observed[2]["y"][0, 1, 4] ^= 1


@pytest.fixture
def make_results():
    """Build results; a simulated ESP32-S3 answered."""

    def make(*rows, **fields):
        device = ("esp32s3", "simulated", "ESP32-S3", 2, "rfc2217://127.0.0.1:4000", "cd" * 32)
        return Results(
            **{"date": DATE, "devices": (Device(*device, "17"),), "rows": rows, **fields}
        )

    return make


@pytest.fixture
def results(make_row, make_results):
    """A device, a row that passed, one that failed and one that is an error."""
    return make_results(
        make_row(),
        make_row(one_element, id="esp32s3-tcn-int16-chunk3", bits=16),
        make_row(lambda o: o.pop(), id="esp32s3-gru-int8-chunk3", model="gru"),
        duration_s=12.5,
        command="pytest -k tcn",
        commit=Commit("0123456789abcdef" * 2 + "01234567", dirty=True),
        environment={"esp-dl": "3.3.9", "numpy": "2.4"},
        incidents=(Incident("esp32s3", "no reply", "soft reset", "recovered", 1.25),),
    )
