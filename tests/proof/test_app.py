"""``--hil-app``: the numbers inside an app with partitions of its own; a stand-in for its build."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.device.firmware import Firmware
from espdl_hil.errors import ConfigError
from espdl_hil.formats.partition_table import DATA, build_table, read_table
from espdl_hil.proof.verify import verify
from espdl_hil.simulator import Devkit, build_app

MODEL = Path(__file__).parents[2] / "models" / "pointwise.py"
TABLE = "partition_table/partition-table.bin"
HIGHER = 0x400000  # than this project's own


@pytest.fixture
def app(tmp_path):
    return build_app("esp32s3", tmp_path / "build")


def prove(app, folder):
    with Devkit("esp32s3") as devkit:
        result = verify(
            MODEL, "esp32s3", bits=8, chunk_frames=4, port=devkit.url, app=str(app), report=folder
        )
        log = next((folder / "logs").glob("*.log")).read_text()
    return result, log


@pytest.mark.parametrize("has_partition", [True, False])
def test_its_own_partition_table_is_honoured(app, has_partition, tmp_path):
    """Without a partition for models they are uploaded, and the numbers are proven all the same."""
    table = read_table((app / TABLE).read_bytes(), path=TABLE)
    own = [part for part in table if part.label != "models"]
    models = next(part for part in table if part.label == "models")
    if has_partition:
        own.append(replace(models, offset=HIGHER, size=0x100000))
    (app / TABLE).write_bytes(build_table(tuple(own)))
    result, log = prove(app, tmp_path / "report")
    (row,) = result.rows
    assert row.outcome is Outcome.PASSED
    assert row.artifacts["app"] == Firmware.read(app, "esp32s3").app_sha256
    assert (f"{DATA:02x} 40 {HIGHER:08x}" in log) == has_partition


def test_an_app_without_the_component_is_refused_before_it_is_flashed(app, tmp_path):
    file = app / "project_description.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps({**description, "build_components": ["main", "esp_wifi"]}))
    with pytest.raises(ConfigError, match="hil_serve is not in it") as error:
        prove(app, tmp_path / "report")
    assert "call hil::Serve()" in str(error.value)


def test_a_simulated_devkit_does_not_run_an_app(app, tmp_path):
    with pytest.raises(ConfigError, match="a simulated devkit does not run your app"):
        verify(MODEL, "esp32s3", app=str(app), report=tmp_path / "report")
