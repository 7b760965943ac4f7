"""``espdl-hil export``: the bytes, header and vectors of a verdict, and what it refuses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from espdl_hil import interpreter
from espdl_hil.cli import main
from espdl_hil.espdl import read_package
from espdl_hil.proof import verify as verify_module
from espdl_hil.proof.hil import Hil
from espdl_hil.simulator import faults

ROOT = Path(__file__).parents[2]
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-fno-exceptions")


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Runs the command in an empty folder with the zoo; gives the exit code and what was proven."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    proven = []

    def prove(case, book):
        hil = Hil(case, book)
        hil.verify()
        proven.append((hil.expected, hil.stream().outputs))
        return ""

    monkeypatch.setattr(verify_module, "prove", prove)

    def run(*arguments):
        proven.clear()
        return main(["export", *map(str, arguments)]), proven

    return run


ROW = ("pointwise", "--target", "esp32s3", "--bits", "8", "--chunk", "4")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results file of a run that proved that row."""
    report = tmp_path_factory.mktemp("report")
    assert verify_module.verify(
        ROOT / "models" / "pointwise.py", "esp32s3", bits=8, chunk_frames=4, report=report
    )
    return report / "results.json"


def compile_cpp(folder, *arguments):
    include = [f"-I{folder / 'include'}", f"-I{folder.parent / 'espdl_stream' / 'include'}"]
    command = ["c++", "-std=c++17", "-O0", *WARNINGS, *include, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def record(expected):
    """All inputs and outputs of each step, states included, as the interpreter sees them."""
    session = interpreter.load(expected.streaming_graph, expected.case.target)
    state = {
        info.name: np.zeros(info.shape, info.dtype)
        for info in session.inputs
        if info.name in expected.plan.state
    }
    data = b""
    for chunk in expected.chunks:
        inputs = {**chunk, **state}
        seen = session.step(inputs)
        data += b"".join(inputs[info.name].tobytes() for info in session.inputs)
        data += b"".join(seen[info.name].tobytes() for info in expected.streaming_graph.outputs)
        state = {name: seen[expected.plan.state[name]] for name in state}
    return data


def run_self_test(folder, name, recording, vectors):
    """Compile the component with the streaming class, and run its self-test."""
    program = folder.parent / "self_test"
    source = program.with_suffix(".cpp")
    source.write_text(
        (Path(__file__).with_name("self_test.cpp.in")).read_text().replace("@NAME@", name)
    )
    stream = folder.parent / "espdl_stream" / "src"
    files = [folder / f"{name}.cpp", stream / "stream.cpp", stream / "self_test.cpp", source]
    compile_cpp(folder, *files, "-o", program)
    command = [program, vectors, recording]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(
    ("model", "target", "chunk", "elements"),
    [
        ("tcn", "esp32s3", 3, 128),
        pytest.param("gru_denoiser", "esp32p4", 4, 480, marks=pytest.mark.slow),
    ],
)
def test_a_component_is_the_verdict(export, tmp_path, model, target, chunk, elements):
    name, folder = f"{model}_int8_chunk{chunk}", tmp_path / "components" / model
    arguments = (model, "--target", target, "--bits", "8", "--chunk", chunk, "-o", folder)
    code, [(expected, observed)] = export(*arguments)
    assert code == 0

    # The files are the artifact's, and the device's row names their hashes.
    streaming = folder / "models" / f"{name}.espdl"
    assert streaming.read_bytes() == expected.streaming_path.read_bytes()
    offline = folder / "models" / f"{name}_offline.espdl"
    assert offline.read_bytes() == expected.artifacts.offline.read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    row, proven_as = manifest["verdict"], manifest["proven_as"]
    assert row["outcome"] == "passed"
    for path, known_as in proven_as.items():
        digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        assert digest == manifest["sha256"][path] == row["artifacts"][known_as]
    assert set(manifest["sha256"]) | {"manifest.json"} == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }

    # The vectors are what went to the device and came back, byte for byte.
    vectors = folder / "vectors" / f"{name}_vectors.bin"
    order = [info.name for info in expected.streaming_graph.outputs]
    steps = b"".join(
        b"".join(np.ascontiguousarray(part[key]).tobytes() for part, keys in pair for key in keys)
        for chunk_in, seen in zip(expected.chunks, observed, strict=True)
        for pair in [[(chunk_in, chunk_in), (seen, order)]]
    )
    data = vectors.read_bytes()
    assert data[:4] == b"ESV1"
    assert data[48:] == steps
    assert struct.unpack_from("<I", data, 4) == (len(observed),)

    # The streaming class takes header and vectors, and feeds the same states back.
    recording = tmp_path / "recording"
    recording.write_bytes(record(expected))
    found = run_self_test(folder, name, recording, vectors)
    assert found == f"no error: {len(observed)} steps, {elements} elements, 0 differ"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = subprocess.run(
        [tmp_path / "components" / "self_test", damaged, recording], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout.startswith("the model does not give what was proven")


def test_the_results_of_a_run_are_enough(export, results, tmp_path, capsys):
    assert export(*ROW, "-o", tmp_path / "a", "--results", results) == (0, [])
    data = json.loads(results.read_text())
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["verdict"] == data["rows"][0]

    # Of other bytes they prove nothing here: it is proven anew.
    data["rows"][0]["artifacts"]["pointwise-int8-chunk4"] = "0" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    code, proven = export(*ROW, "-o", tmp_path / "b", "--results", other)
    assert (code, len(proven)) == (0, 1)
    assert "proves other bytes of pointwise-int8-chunk4" in capsys.readouterr().err

    # Nor do they without the checks of stream and interpreter; those of others are not demanded.
    for check, code_and_count in (
        ("streaming", (0, 1)),
        ("interpreter", (0, 1)),
        ("reference", (0, 0)),
    ):
        data = json.loads(results.read_text())
        data["rows"][0]["checks"][check] = None
        other.write_text(json.dumps(data))
        code, proven = export(*ROW, "-o", tmp_path / "b", "--results", other)
        assert (code, len(proven)) == code_and_count, check
        said = f"does not prove these bytes whole, without {check}: proven now"
        assert (said in capsys.readouterr().err) == bool(proven)

    # A failed verdict refuses, and leaves no file.
    data = json.loads(results.read_text())
    data["rows"][0]["outcome"] = "failed"
    data["rows"][0]["details"]["error"] = "because"
    other.write_text(json.dumps(data))
    assert export(*ROW, "-o", tmp_path / "c", "--results", other) == (1, [])
    assert "nothing was exported" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    other.write_text("{}")
    assert export(*ROW, "-o", tmp_path / "c", "--results", other) == (2, [])


@pytest.mark.parametrize(
    ("embed", "load", "cmake"),
    [
        ("rodata", "LoadAddress(kStreaming", "target_add_aligned_binary_data"),
        ("partition", 'LoadPartition("mine", "kws"', 'esptool_py_flash_to_partition(flash "mine"'),
        ("sdcard", 'const char* path = "/sdcard/kws.espdl"', "vectors/kws_vectors.bin"),
    ],
)
def test_where_the_model_lies(export, results, tmp_path, embed, load, cmake):
    folder = tmp_path / "kws"
    where = ("--embed", embed, "--label", "mine", "--as", "kws", "-o", folder)
    assert export(*ROW, *where, "--results", results)[0] == 0
    assert load in (folder / "include" / "kws.h").read_text()
    listing = (folder / "CMakeLists.txt").read_text()
    assert cmake in listing
    assert ("models/kws.espdl" in listing) == (embed == "rodata")
    compile_cpp(folder, folder / "kws.cpp", "-fsyntax-only")
    assert (folder / "models.bin").exists() == (embed == "partition")
    if embed == "partition":
        names = [entry.name for entry in read_package((folder / "models.bin").read_bytes())]
        assert names == ["kws", "kws_offline"]


def test_a_users_mistakes(export, results, tmp_path, capsys):
    row = (*ROW, "--results", results)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    for arguments, message in [
        ((*row, "-o", mine), "is not empty and holds no earlier export"),
        ((*ROW[:3], "--chunk", "4", "-o", tmp_path / "x"), "has 8, 16: say which with --bits"),
        (("nothing", *ROW[1:], "-o", tmp_path / "x"), "nothing: no such model file"),
    ]:
        assert export(*arguments)[0] == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    assert export(*row, "-o", tmp_path / "x")[0] == 0
    (tmp_path / "espdl_stream" / "CMakeLists.txt").write_text("# mine\n")
    assert export(*row, "-o", tmp_path / "x")[0] == 2
    assert "is not the streaming class of this version" in capsys.readouterr().err


def test_a_verdict_that_is_not_green_exports_nothing(export, tmp_path, capsys, monkeypatch):
    def wrong(case, book):
        with contextlib.suppress(verify_module.VerificationError):
            hil = Hil(case, book)
            book.rig.dut(case.target)
            book.rig.devkits[case.target].inject(faults.StateDropped(step=2))
            hil.verify()
        return "it differs"

    monkeypatch.setattr(verify_module, "prove", wrong)
    row = ("tcn", "--target", "esp32s3", "--bits", "8", "--chunk", "3")
    assert export(*row, "-o", tmp_path / "x")[0] == 1
    assert "it differs" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()
