from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.compare import Fidelity, compare_streams
from espdl_hil.report import Details, Device, Results, Row


def stream(seed=0):
    rng = np.random.default_rng(seed)
    return [{"y": rng.integers(-90, 90, (1, 3, 5)).astype(np.int8)} for _ in range(4)]


@pytest.fixture
def make_row():
    """Build a row; *spoil* changes what was observed."""

    def make(spoil=lambda observed: None, **fields):
        expected, observed = stream(), stream()
        spoil(observed)
        fields = {
            "id": "esp32s3-tcn-int8-chunk3",
            "target": "esp32s3",
            "model": "tcn",
            "bits": 8,
            "chunk_frames": 3,
            "device_kind": "simulated",
            "artifacts": {"chunk3.espdl": "ab" * 32},
            "details": Details(alignment=("y: 3 frames a chunk",)),
            **fields,
        }
        verdict = compare_streams(expected, observed, frame_axes={"y": 1})
        fidelity = Fidelity.of(expected[0]["y"], expected[0]["y"] * 1.01)
        return Row.of_verdict(verdict, fidelity=fidelity, **fields)

    return make


@pytest.fixture
def results(make_row):
    """A device, a row that passed, one that failed and one that is an error."""
    results = Results(environment={"esp-dl": "3.3.9", "numpy": "2.4"})
    results.add_device(
        Device("esp32s3", "simulated", "ESP32-S3", 2, "rfc2217://127.0.0.1:4000", "cd" * 32, "17")
    )
    results.add_row(make_row())

    def one_element(observed):
        observed[2]["y"][0, 1, 4] ^= 1

    results.add_row(make_row(one_element, id="esp32s3-tcn-int16-chunk3", bits=16))
    results.add_row(make_row(lambda o: o.pop(), id="esp32s3-gru-int8-chunk3", model="gru"))
    return results
