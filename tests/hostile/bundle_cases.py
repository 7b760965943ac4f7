"""Repro bundles by strangers: damaged, forged and exploding; each is replayed from the command."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path

import mutations
import numpy as np

from espdl_hil.__main__ import main
from espdl_hil.cli import replay
from espdl_hil.interpreter import load
from espdl_hil.report import Repro, write_repro

BOUND = (64, 768 * 2**20)  # bytes of memory for each byte of the bundle, and a constant
MODEL = "stream_residual.streaming.esp32s3.int8"
ABSURD = (
    *(None, True, -1, 0, 99, 2**31, 2**64, 10**400, 1e308, float("inf"), float("nan"), "", "x"),
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202e", "\ud800", "a" * 100_000),
    *([], {}, [[]], [[["x"]]], [None], {"x": {}}, {"": None}, {"\x1b[2J": 1}, [2**70]),
)
DESCRIPTIONS = (  # of arrays, beside the right one
    *("'|O'", "'<i8'", "'<f8'", "'|S9'", "'<U9'", "'<M8[s]'", "[('a', '<i4')]", "('i1', (9, 9))"),
    *("'V1000000000'", "'bogus'", "1", "'<c16'", "'|b1'", "(" * 300),
)
SHAPES = (
    "(1073741824, 1073741824)",
    "(-1,)",
    "(0,)",
    "()",
    "(2147483648, 2147483648, 4)",
    "9",
    "'x'",
)


def sound_bundle():
    """The bytes of a bundle of four chunks in which one element differs."""
    artifact = mutations.golden_model(MODEL)
    session = load(artifact, "esp32s3")
    rng = np.random.default_rng(0)
    stimulus = [{i.name: mutations.noise(rng, i) for i in session.inputs} for _ in range(4)]
    expected = [session.step(chunk) for chunk in stimulus]
    observed = [{name: array.copy() for name, array in chunk.items()} for chunk in expected]
    name = session.outputs[0].name
    observed[2][name].reshape(-1)[0] ^= 1
    repro = Repro(
        id="esp32s3-model-int8-chunk3",
        target="esp32s3",
        model="model",
        substrate="simulated",
        artifacts={"model.espdl": artifact},
        main="model.espdl",
        stimulus=stimulus,
        expected=expected,
        observed=observed,
        frame_axes={name: 1},
        diagnosis={"cause": "cause", "text": "text"},
        versions={"esp-dl": "3.3.9"},
    )
    with tempfile.TemporaryDirectory() as folder:
        return write_repro(Path(folder), repro).read_bytes()


def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files, *, manifest=None, compression=zipfile.ZIP_DEFLATED):
    """A bundle whose hashes are right, whatever it holds."""
    known = json.loads(files["manifest.json"]) if manifest is None else manifest
    if isinstance(known, dict) and isinstance(known.get("files"), dict):
        known["files"] = {
            name: hashlib.sha256(files[name]).hexdigest() if name in files else digest
            for name, digest in known["files"].items()
        }
    text = json.dumps(known).encode("utf-8", "surrogatepass")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in {**files, "manifest.json": text}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def flipped(data, rng):
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(data, rng):
    return data[: rng.integers(len(data))]


def directory(data, rng):
    """Absurd numbers in the zip's own tables."""
    changed, start = bytearray(data), data.rindex(b"PK\1\2")
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(start, len(data) - 4))
        struct.pack_into("<I", changed, at, int(rng.choice([0, 1, 2**16 - 1, 2**31, 2**32 - 1])))
    return bytes(changed)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, dict | list) else ():
        yield from places(inner, (*path, key)) if isinstance(inner, dict | list) else [(*path, key)]


def forged(data, rng):
    """One or two values of the manifest replaced or left out."""
    files = members(data)
    manifest = json.loads(files["manifest.json"])
    for _ in range(rng.integers(1, 3)):
        known = [path for path in places(manifest) if path]
        *path, last = known[rng.integers(len(known))]
        owner = manifest
        for key in path:
            owner = owner[key]
        if rng.integers(4) == 0:
            del owner[last]
        else:
            owner[last] = ABSURD[rng.integers(len(ABSURD))]
        if not manifest:
            break
    return packed(files, manifest=manifest)


def array_file(description, shape, data=bytes(64)):
    text = f"{{'descr': {description}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def arrays(data, rng):
    """One array's header or data replaced; deflated now and then."""
    files = members(data)
    stream = ("stimulus.npz", "expected.npz", "observed.npz")[rng.integers(3)]
    inner = members(files[stream])
    name = sorted(inner)[rng.integers(len(inner))]
    kind = rng.integers(5)
    if kind == 0:
        description = DESCRIPTIONS[rng.integers(len(DESCRIPTIONS))]
        inner[name] = array_file(description, "(64,)")
    elif kind == 1:
        inner[name] = array_file("'|i1'", SHAPES[rng.integers(len(SHAPES))])
    elif kind == 2:
        inner[name] = flipped(inner[name], rng)
    elif kind == 3:
        inner[name] = cut(inner[name], rng)
    else:
        del inner[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", (0, 8)[rng.integers(2)]) as archive:
        for key, content in inner.items():
            archive.writestr(key, content)
    files[stream] = buffer.getvalue()
    return packed(files)


def artifact(data, rng):
    """A hostile model under a right hash."""
    files = members(data)
    files["artifacts/model.espdl"] = mutations.mutate([files["artifacts/model.espdl"]], rng)[0]
    return packed(files)


def exploding(data, rng):
    """A bomb: members or arrays of hundreds of megabytes, thousands of members, deep JSON."""
    files = members(data)
    kind = rng.integers(6)
    if kind == 0:
        files["artifacts/more.espdl"] = bytes(2**28)
    elif kind == 1:
        files |= {f"artifacts/{i}": b"" for i in range(20_000)}
    elif kind == 2:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("c0t0.npy", array_file("'|i1'", f"({2**27},)", bytes(2**27)))
        files["expected.npz"] = buffer.getvalue()
    elif kind == 3:
        return packed(files, manifest=json.loads("[" * 900 + "]" * 900))
    elif kind == 4:
        manifest = json.loads(files["manifest.json"])
        manifest["tensors"]["expected"] = [[]] * (1_000_000 if rng.integers(2) else 3_000_000)
        return packed(files, manifest=manifest)
    else:
        return lying(packed(files | {"artifacts/more.espdl": bytes(2**27)}), 10)
    return packed(files)


def lying(data, size):
    """The zip says that its largest member has *size* bytes."""
    real = struct.pack("<I", 2**27)
    return data.replace(real, struct.pack("<I", size))


MUTATIONS = (flipped, cut, directory, *(forged,) * 5, *(arrays,) * 3, artifact)


def simulated(repro):
    """The devkit's part: the artifact over the stimulus, in this process."""
    session = load(repro.artifacts[repro.main], repro.target)
    return [session.step(chunk) for chunk in repro.stimulus]


def replayed(data):
    """What ``espdl-hil replay`` makes of it; nothing that it prints may move the cursor."""
    replay.run_simulated = simulated
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.zip"
        path.write_bytes(data)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(["replay", str(path)])
    said = printed.getvalue()
    assert code in (0, 1, 2), code
    assert "Traceback" not in said
    assert "\x1b" not in said, said
    assert "\u202e" not in said, said
    assert "error: " in said or code != 2
    said.encode()
    return ("reproduced", "not reproduced", "refused")[code]


def warm_up():
    """Load here, once, what each attack would load in its fork."""
    replayed(sound_bundle())


def mutated(seed, count):
    """Cases of hostile bundles; the first is sound."""
    rng, sound = np.random.default_rng(seed), sound_bundle()
    yield "the sound bundle", lambda: replayed(sound), BOUND[0] * len(sound) + BOUND[1]
    for number in range(count):
        bomb = number % 50 == 7
        change = exploding if bomb else MUTATIONS[rng.integers(len(MUTATIONS))]
        data = change(sound, rng)
        name = f"bundle {number} of seed {seed} ({change.__name__}, {len(data)} bytes)"
        yield name, lambda data=data: replayed(data), BOUND[0] * len(data) + BOUND[1]
