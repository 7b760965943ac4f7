"""Build directories: read, and refused with the reason."""

from __future__ import annotations

import json
import shutil

import pytest

from espdl_hil.device.firmware import Firmware
from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.formats.partition_table import Partition, build_table
from espdl_hil.simulator.image import app_sha256

NO_MODELS = build_table((Partition("nvs", 1, 2, 0x9000, 0x6000),))


@pytest.fixture
def copy(build_dir, tmp_path):
    return shutil.copytree(build_dir, tmp_path / "build")


def test_a_build_says_what_goes_where(build_dir):
    firmware = Firmware.read(build_dir, "esp32s3")
    assert firmware.target == firmware.app.target == "esp32s3"
    assert firmware.app_sha256 == app_sha256("esp32s3").hex()
    assert firmware.models.label == "models"
    assert [file.offset for file in firmware.app.flash_files] == [0x0, 0x8000, 0x10000]


def test_an_app_of_its_own_partitions_and_baud_rate(copy):
    (copy / "partition_table" / "partition-table.bin").write_bytes(NO_MODELS)
    settings = json.loads((copy / "config" / "sdkconfig.json").read_text())
    settings["ESP_CONSOLE_UART_BAUDRATE"] = 921600
    (copy / "config" / "sdkconfig.json").write_text(json.dumps(settings))
    firmware = Firmware.read(copy, "esp32s3")
    assert (firmware.models, firmware.baud) == (None, 921600)
    with pytest.raises(ConfigError, match="has no partition 'models' for a models package"):
        firmware.require_fit(b"x")


@pytest.mark.parametrize(
    ("file", "key", "value", "why"),
    [
        ("project_description.json", "build_components", ["main"], "hil_serve is not in it"),
        ("config/sdkconfig.json", "HIL_SERVE", False, "built with CONFIG_HIL_SERVE=n"),
    ],
)
def test_an_app_that_cannot_answer_is_refused(copy, file, key, value, why):
    (copy / file).write_text(json.dumps({**json.loads((copy / file).read_text()), key: value}))
    with pytest.raises(ConfigError, match=why):
        Firmware.read(copy, "esp32s3")


def test_another_target_is_refused(build_dir):
    with pytest.raises(
        ConfigError, match="was built for esp32s3, the device is an esp32p4"
    ) as caught:
        Firmware.read(build_dir, "esp32p4")
    assert "idf.py set-target esp32p4" in str(caught.value)


def test_an_unfinished_build_is_refused(copy):
    (copy / "flasher_args.json").unlink()
    with pytest.raises(ConfigError, match=r"no finished ESP-IDF build: flasher_args\.json"):
        Firmware.read(copy, "esp32s3")


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("flasher_args.json", b"{", "not JSON"),
        ("flasher_args.json", b"[]", "not a JSON object"),
        ("flasher_args.json", b"{}", r"pytest-embedded cannot read the build \(KeyError"),
        ("partition_table/partition-table.bin", b"\0" * 64, "partition 0 invalid magic number 0x0"),
        ("partition_table/partition-table.bin", b"\xff" * 32, "invalid magic number 0xffff"),
        ("espdl_hil_sim.bin", b"\0" * 300, "app description starts with 0x00000000"),
    ],
)
def test_a_damaged_file_is_named(copy, file, content, why):
    (copy / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=why):
        Firmware.read(copy, "esp32s3")


def test_a_missing_image_is_named(copy):
    (copy / "espdl_hil_sim.bin").unlink()
    with pytest.raises(ArtifactError, match=r"espdl_hil_sim\.bin is missing"):
        Firmware.read(copy, "esp32s3")


def test_a_build_without_an_app_is_named(copy):
    arguments = json.loads((copy / "flasher_args.json").read_text())
    del arguments["app"]
    (copy / "flasher_args.json").write_text(json.dumps(arguments))
    with pytest.raises(ArtifactError, match=r"flasher_args\.json names no app"):
        Firmware.read(copy, "esp32s3")
