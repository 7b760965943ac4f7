import json
import zipfile

import numpy as np
import pytest

from espdl_hil.compare import Outcome, Tolerance
from espdl_hil.errors import ArtifactError
from espdl_hil.report import Repro, read_repro, write_repro


def bundle(**changes):
    rng = np.random.default_rng(0)
    expected = [{"/out/y": rng.integers(-9, 9, (1, 3, 5)).astype(np.int16)} for _ in range(3)]
    observed = [{name: array.copy() for name, array in chunk.items()} for chunk in expected]
    observed[1]["/out/y"][0, 2, 4] += 2
    fields = {
        "id": "esp32s3-tcn-int16-chunk3",
        "target": "esp32s3",
        "model": "tcn",
        "substrate": "simulated",
        "artifacts": {"chunk3.espdl": b"EDL2" + bytes(64), "offline.espdl": b"EDL2"},
        "main": "chunk3.espdl",
        "stimulus": [{"x": np.full((1, 3, 2), n, np.int16)} for n in range(3)],
        "expected": expected,
        "observed": observed,
        "frame_axes": {"/out/y": 1},
        "tolerance": Tolerance(max_lsb=1),
        "versions": {"esp-dl": "3.3.9"},
        "diagnosis": {"cause": "rounding mode", "text": "…"},
        **changes,
    }
    return Repro(**fields)


def same(left, right):
    return len(left) == len(right) and all(
        a.keys() == b.keys()
        and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)
        for a, b in zip(left, right, strict=True)
    )


def test_round_trip(tmp_path):
    repro = bundle(state={"h0": "hn"}, skip_frames={"/out/y": 1}, silent_chunks=[0])
    path = write_repro(tmp_path / "repro", repro)
    assert path == tmp_path / "repro" / "esp32s3-tcn-int16-chunk3.zip"
    again = read_repro(path)
    for stream in ("stimulus", "expected", "observed"):
        assert same(getattr(repro, stream), getattr(again, stream))
    arrays = {"stimulus", "expected", "observed"}
    rest = {name: value for name, value in vars(repro).items() if name not in arrays}
    assert {name: value for name, value in vars(again).items() if name not in arrays} == rest


def test_equal_bundles_have_equal_bytes(tmp_path):
    one, two = (write_repro(tmp_path / name, bundle()) for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_the_rows_next_failure_leaves_the_first_bundle(tmp_path):
    paths = [write_repro(tmp_path, bundle(diagnosis={"cause": c, "text": c})) for c in "abc"]
    stem = "esp32s3-tcn-int16-chunk3"
    assert [path.name for path in paths] == [f"{stem}.zip", f"{stem}-2.zip", f"{stem}-3.zip"]
    assert [read_repro(path).diagnosis["cause"] for path in paths] == ["a", "b", "c"]


def test_an_id_that_is_no_file_name(tmp_path):
    assert write_repro(tmp_path, bundle(id="../a b/ü:c")).name == ".._a_b_ü_c.zip"


def test_replay_that_reproduces():
    repro = bundle()
    replay = repro.replayed(repro.observed)
    assert replay.reproduced
    assert replay.verdict.outcome is Outcome.FAILED
    assert str(replay).endswith("reproduced: this run gives what was recorded")


def test_replay_that_does_not():
    repro = bundle()
    good = repro.replayed(repro.expected)
    assert not good.reproduced
    assert good.verdict.outcome is Outcome.PASSED
    assert "not reproduced: this run gives the expected values" in str(good)
    other = [{k: v + 5 for k, v in chunk.items()} for chunk in repro.observed]
    assert "differs from the recorded run: 45 of 45 differ" in str(repro.replayed(other))


def rewrite(path, change):
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def edit_manifest(**values):
    def change(files):
        files["manifest.json"] = json.dumps(
            {**json.loads(files["manifest.json"]), **values}
        ).encode()

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.update({"expected.npz": b"x"}), "'expected.npz' is not what was bundled"),
        (lambda f: f.update({"artifacts/chunk3.espdl": b"x"}), "is not what was bundled"),
        (lambda f: f.pop("manifest.json"), "not a repro bundle"),
        (lambda f: f.pop("observed.npz"), "not a repro bundle: ['observed.npz'] missing"),
        (edit_manifest(schema=9), "schema 9, this reader knows 2"),
        (edit_manifest(main="other.espdl"), "no artifact 'other.espdl'"),
        (edit_manifest(tensors=[]), "manifest: tensors is []"),
        (edit_manifest(tensors={"stimulus": []}), "manifest: tensors is {'stimulus': []}"),
        (edit_manifest(id=["a"]), "manifest: id is ['a']"),
        (edit_manifest(target="esp32c6"), "manifest: target is 'esp32c6'"),
        (edit_manifest(frame_axes={"/out/y": 99}), "manifest: frame_axes is {'/out/y': 99}"),
        (edit_manifest(frame_axes={"/out/y": 3}), "frame axis 3 of '/out/y', which has 3 dim"),
        (edit_manifest(frame_axes={"z": 1}), "chunk 0: no expected 'z'"),
        (edit_manifest(skip_frames={"/out/y": -1}), "manifest: skip_frames is"),
        (edit_manifest(silent_chunks=3), "manifest: silent_chunks is 3"),
        (edit_manifest(state={"h": None}), "manifest: state is {'h': None}"),
        (edit_manifest(tolerance={"max_lsb": 1}), "manifest: tolerance is {'max_lsb': 1}"),
        (edit_manifest(diagnosis={"cause": "x"}), "manifest: diagnosis is {'cause': 'x'}"),
        (edit_manifest(diagnosis={"cause": "", "text": "\x1b[2J"}), "manifest: diagnosis is"),
        (edit_manifest(id="\x1b]0;title\x07"), r"manifest: id is '\x1b]0;title\x07'"),
        (edit_manifest(versions=["a" * 1000]), "a…"),
        (edit_manifest(files={}), "'stimulus.npz'] missing"),
        (lambda f: f.update({"manifest.json": b"[" * 10**6}), "not a repro bundle"),
        (lambda f: f.update({"manifest.json": b"[]"}), "manifest: schema None, this reader"),
        (lambda f: f.update({str(i): b"" for i in range(100)}), "members, expected 64 or fewer"),
        (lambda f: f.update({"x": bytes(2**28)}), "are the most for its size"),
        (lambda f: f.update({"manifest.json": bytes(2**22 + 1)}), "'manifest.json' has 4194305"),
    ],
)
def test_a_changed_bundle_is_refused(tmp_path, change, text):
    path = write_repro(tmp_path, bundle())
    rewrite(path, change)
    with pytest.raises(ArtifactError) as caught:
        read_repro(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert "hint: take the bundle from hil-report/repro/" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(ArtifactError, match="No such file or directory"):
        read_repro(tmp_path / "absent.zip")


def test_damaged_files_give_one_kind_of_error_or_the_bundle(tmp_path):
    good = write_repro(tmp_path, bundle()).read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        if rng.random() < 0.2:
            data = data[: rng.integers(len(data))]
        path = tmp_path / "damaged.zip"
        path.write_bytes(data)
        try:
            again = read_repro(path)
        except ArtifactError:
            refused += 1
        else:
            assert same(again.expected, bundle().expected)
    assert refused > 200
