"""The build directory: what stock tools make of it, and what it says about the firmware."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict

import pytest
from esptool.bin_image import LoadFirmwareImage
from pytest_embedded_idf.app import IdfApp

from espdl_hil.errors import ConfigError
from espdl_hil.formats.esp_image import AppDescription
from espdl_hil.formats.partition_table import read_table
from espdl_hil.simulator import image, sources
from espdl_hil.simulator.chips import CHIPS
from espdl_hil.simulator.image import app_sha256, build_app


@pytest.fixture
def build(builds, chip):
    return builds[chip.name]


# IdfApp leaves its JSON files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pytest_embedded_reads_it(build, chip):
    app = IdfApp(binary_path=str(build))
    assert app.target == chip.name
    assert app.is_riscv32 is (chip.name == "esp32p4")
    assert app.bin_file.endswith("espdl_hil_sim.bin")
    assert app.elf_file.endswith("espdl_hil_sim.elf")
    assert [(file.offset, file.encrypted) for file in app.flash_files] == sorted(
        [(chip.target.bootloader_offset, False), (0x8000, False), (0x10000, False)]
    )
    assert app.flash_settings == {
        "flash_mode": "dio",
        "flash_size": "16MB",
        "flash_freq": "80m",
        "encrypt": False,
    }
    assert app.flash_args["extra_esptool_args"]["chip"] == chip.name


@pytest.mark.parametrize("name", ["espdl_hil_sim.bin", "bootloader/bootloader.bin"])
def test_esptool_accepts_the_images(build, chip, name):
    loaded = LoadFirmwareImage(chip.name, str(build / name))
    loaded.verify()
    assert loaded.chip_id == chip.target.chip_id
    assert loaded.checksum == loaded.calculate_checksum()
    assert loaded.stored_digest == loaded.calc_digest
    assert (loaded.flash_mode, loaded.flash_size_freq) == (2, 0x4F)  # dio, 16 MB at 80 MHz


def test_the_application_says_that_it_is_simulated(build, chip):
    data = (build / "espdl_hil_sim.bin").read_bytes()
    description = AppDescription.unpack(data[0x20:])
    manifest = (build / "espdl_hil_sim.elf").read_bytes()
    assert asdict(description) == {
        "project": "espdl_hil_sim",
        "version": hashlib.sha256(manifest).hexdigest()[:12],
        "elf_sha256": hashlib.sha256(manifest).digest(),
        "idf_version": "none (simulated)",
        "date": "",
        "time": "",
    }
    assert manifest.startswith(f"espdl_hil_sim for {chip.name}: not an ELF file\n".encode())
    assert app_sha256(chip.name) == hashlib.sha256(manifest).digest()


def test_the_partition_table_is_the_firmwares(build):
    table = read_table(
        (build / "partition_table/partition-table.bin").read_bytes(), flash_bytes=16 << 20
    )
    assert {"factory", "models"} <= {partition.label for partition in table}


def test_other_files_are_what_idf_leaves(build, chip):
    description = json.loads((build / "project_description.json").read_text())
    assert (description["project_name"], description["target"]) == ("espdl_hil_sim", chip.name)
    assert f'CONFIG_IDF_TARGET="{chip.name}"\n' in (build / "sdkconfig").read_text()


def test_the_same_sources_give_the_same_images(build, chip, tmp_path):
    again = build_app(chip.name, tmp_path / "again")
    for name in ("espdl_hil_sim.bin", "espdl_hil_sim.elf", "bootloader/bootloader.bin"):
        assert (again / name).read_bytes() == (build / name).read_bytes()


@pytest.fixture
def own_firmware(tmp_path, monkeypatch):
    """A copy of the firmware that a test may change."""
    copy = tmp_path / "firmware"
    shutil.copytree(sources.firmware_dir(), copy, ignore=shutil.ignore_patterns("build*"))
    monkeypatch.setattr(sources, "firmware_dir", lambda: copy)
    monkeypatch.setattr(image, "firmware_dir", lambda: copy)
    return copy


@pytest.mark.parametrize(
    "file", ["host/hil_host.cpp", "components/wire/include/wire/cobs.h", "host/sources.txt"]
)
def test_a_changed_core_changes_the_hash(own_firmware, file):
    before = app_sha256("esp32s3")
    with (own_firmware / file).open("a") as stream:
        stream.write("\n")
    assert app_sha256("esp32s3") != before


def test_changed_tests_and_notes_do_not_change_the_hash(own_firmware):
    before = app_sha256("esp32s3")
    (own_firmware / "host" / "tests").mkdir(exist_ok=True)
    (own_firmware / "host" / "tests" / "more.cpp").write_text("// a test")
    (own_firmware / "components" / "notes.md").write_text("notes")
    assert app_sha256("esp32s3") == before


def test_the_targets_have_different_hashes():
    assert len({app_sha256(target) for target in CHIPS}) == len(CHIPS)


def test_a_table_without_an_application(own_firmware, tmp_path):
    (own_firmware / "partitions.csv").write_text("nvs, data, nvs, , 24K,\n")
    with pytest.raises(ConfigError) as error:
        build_app("esp32s3", tmp_path / "out")
    assert str(error.value) == "firmware/partitions.csv has no factory app partition"


def test_there_is_no_devkit_of_other_targets(tmp_path):
    with pytest.raises(ConfigError) as error:
        build_app("esp32c6", tmp_path)
    assert str(error.value) == (
        "there is no simulated devkit for target 'esp32c6'\n  hint: targets: esp32s3, esp32p4"
    )
