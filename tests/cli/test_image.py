"""``espdl-hil image`` with exported files; model files are quantized in ``tests/plugin``."""

import json
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.cli import main
from espdl_hil.device.firmware import Firmware
from espdl_hil.espdl import read_package
from espdl_hil.simulator import build_app

GOLDEN = Path(__file__).parents[1] / "golden" / "stream_residual.streaming.esp32s3.int8.npz"


@pytest.fixture(scope="module")
def build_dir(tmp_path_factory):
    return build_app("esp32s3", tmp_path_factory.mktemp("build"))


@pytest.fixture
def model(tmp_path):
    archive = np.load(GOLDEN)
    paths = json.loads(archive["index"].tobytes())["tensors"]
    data = next(archive[key] for key, path in paths.items() if path == "model")
    path = tmp_path / "mine.espdl"
    path.write_bytes(data.tobytes())
    return path


@pytest.fixture
def image(build_dir, tmp_path):
    """Runs the command; gives the exit code."""

    def run(*arguments):
        common = ["--target=esp32s3", f"--app={build_dir}", f"-o{tmp_path / 'out.bin'}"]
        return main(["image", *map(str, arguments), *common])

    return run


def test_an_image_is_a_whole_flash(image, model, build_dir, tmp_path):
    assert image(model) == 0
    flash = (tmp_path / "out.bin").read_bytes()
    firmware = Firmware.read(build_dir, "esp32s3")
    (entry,) = read_package(flash[firmware.models.offset :][: firmware.models.size])
    assert (len(flash), entry.name) == (16 << 20, "mine")
    assert model.read_bytes().startswith(entry.data.rstrip(b"\0"))
    for file in firmware.app.flash_files:
        data = Path(file.file_path).read_bytes()
        assert flash[file.offset :].startswith(data[:2])


def test_the_package_alone_needs_no_build(model, tmp_path):
    out = tmp_path / "models.pdl"
    assert main(["image", str(model), "--target=esp32c3", "--package", f"-o{out}"]) == 0
    assert [entry.name for entry in read_package(out.read_bytes())] == ["mine"]


def test_a_users_mistakes(image, model, tmp_path, capsys):
    for arguments, message in [
        ([tmp_path / "none.espdl"], "none.espdl cannot be read: No such file"),
        ([tmp_path / "none.py"], "none.py: no such model file or folder"),
        ([model, model], "a package needs unique model names"),
        ([model, "--device=espemu"], "esp-emu does not emulate esp32s3"),
    ]:
        assert image(*arguments) == 2
        assert message in capsys.readouterr().err
    model.write_bytes(b"EDL2 but no more")
    assert image(model) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out.bin").exists()


def test_models_that_do_not_fit(image, model, tmp_path, capsys):
    many = []
    for number in range(9 * (1 << 20) // model.stat().st_size):
        many.append(tmp_path / f"m{number}.espdl")
        many[-1].write_bytes(model.read_bytes())
    assert image(*many) == 2
    assert "the partition 'models' 8388608" in capsys.readouterr().err
