"""Repro bundles: everything that a mismatch needs to be seen again, in one zip.

::

    manifest.json              who, where, with which versions; names and hashes of the rest
    artifacts/<name>           the bytes that were flashed
    {stimulus,expected,observed}.npz   one array a chunk and tensor, named by the manifest
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zipfile
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.compare import EXACT, Outcome, StreamVerdict, Tolerance, compare_streams
from espdl_hil.errors import ArtifactError
from espdl_hil.formats.npz import UNREADABLE, read_members, read_npz
from espdl_hil.report.files import safe_name, write_atomically
from espdl_hil.report.schema import SCHEMA, STREAMS, ResultsError, validate_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from espdl_hil.compare import Array

    Chunks = Sequence[Mapping[str, Array]]

MANIFEST = "manifest.json"
MAX_MEMBERS = 64  # manifest, streams, two artifacts
MAX_MANIFEST_BYTES = 2**22  # some 100,000 chunks; objects of Python are 24 times their JSON
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's earliest time: equal bundles have equal bytes


@dataclass(frozen=True)
class Repro:
    """One mismatch, with all that is needed to see it again.

    Attributes:
        id: The row's id.
        target: ``esp32s3`` or ``esp32p4``.
        model: The model's name; the device knows the artifact by it.
        substrate: Where it was seen, ``simulated`` or ``silicon``.
        artifacts: File name to bytes.
        main: The file of *artifacts* that ran.
        stimulus: For each chunk, graph input name to array, the file's layout.
        expected: For each chunk, graph output name to array.
        observed: For each chunk, what the device gave.
        frame_axes: Time axis of each output that is compared.
        skip_frames: Leading frames of an output without a counterpart.
        silent_chunks: Chunks that lie wholly in skipped frames.
        state: Graph input fed back from a graph output, by name.
        tolerance: What counts as equal.
        versions: Component to version.
        diagnosis: What was found then; None without.
    """

    id: str
    target: str
    model: str
    substrate: str
    artifacts: Mapping[str, bytes]
    main: str
    stimulus: Chunks
    expected: Chunks
    observed: Chunks
    frame_axes: Mapping[str, int | None]
    skip_frames: Mapping[str, int] = field(default_factory=dict)
    silent_chunks: Sequence[int] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    tolerance: Tolerance = EXACT
    versions: Mapping[str, str] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None

    def judge(self, observed: Chunks) -> StreamVerdict:
        """Judge another run of the bundle as the first was judged."""
        return compare_streams(
            self.expected,
            observed,
            self.tolerance,
            frame_axes=self.frame_axes,
            skip_frames=self.skip_frames,
            silent_chunks=self.silent_chunks,
        )

    def replayed(self, observed: Chunks) -> Replay:
        """Compare another run with the recorded one.

        Args:
            observed: For each chunk, what the other device gave.
        """
        axes = dict(self.frame_axes)
        return Replay(
            verdict=self.judge(observed),
            recorded=self.judge(self.observed),
            against_recorded=compare_streams(self.observed, observed, frame_axes=axes),
        )


@dataclass(frozen=True)
class Replay:
    """What another run of a bundle gave.

    Attributes:
        verdict: The other run against the expected values.
        recorded: The recorded run against the expected values.
        against_recorded: The other run against the recorded one, exactly.
    """

    verdict: StreamVerdict
    recorded: StreamVerdict
    against_recorded: StreamVerdict

    @property
    def reproduced(self) -> bool:
        """Whether the other run gave what the recorded one gave, element by element."""
        return self.against_recorded.outcome is Outcome.PASSED

    def __str__(self) -> str:
        if self.reproduced:
            conclusion = "reproduced: this run gives what was recorded"
        elif self.verdict.outcome is Outcome.PASSED:
            conclusion = (
                "not reproduced: this run gives the expected values, so the cause is in the "
                "device or on its way, not in the artifact"
            )
        else:
            conclusion = f"differs from the recorded run: {self.against_recorded}"
        return f"recorded: {self.recorded}\nthis run: {self.verdict}\n{conclusion}"


def write_repro(directory: Path, repro: Repro) -> Path:
    """Write a bundle, whole or not at all; one that is there already stays.

    Returns:
        ``<directory>/<id>.zip``, with what a file name cannot hold replaced; ``<id>-2.zip`` and
        so on for further mismatches of the same row.
    """
    files = {f"artifacts/{name}": data for name, data in repro.artifacts.items()}
    tensors: dict[str, list[list[str]]] = {}
    for stream in STREAMS:
        chunks: Chunks = getattr(repro, stream)
        tensors[stream] = [list(chunk) for chunk in chunks]
        files[f"{stream}.npz"] = _pack(chunks)
    manifest = {
        "schema": SCHEMA,
        **{name: getattr(repro, name) for name in ("id", "target", "model", "substrate", "main")},
        "frame_axes": dict(repro.frame_axes),
        "skip_frames": dict(repro.skip_frames),
        "silent_chunks": list(repro.silent_chunks),
        "state": dict(repro.state),
        "tolerance": asdict(repro.tolerance),
        "versions": dict(repro.versions),
        "diagnosis": repro.diagnosis,
        "tensors": tensors,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files = {MANIFEST: json.dumps(manifest).encode() + b"\n", **files}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    directory.mkdir(parents=True, exist_ok=True)
    stem = safe_name(repro.id)
    taken = {path.name for path in directory.iterdir()}
    names = (f"{stem}{'' if n == 1 else f'-{n}'}.zip" for n in itertools.count(1))
    name = next(name for name in names if name not in taken)
    return write_atomically(directory / name, buffer.getvalue())


def read_repro(path: Path) -> Repro:
    """Read a bundle and check every hash.

    A bundle may come from a stranger: what it asks for is bounded before it is read, and nothing
    that it says is believed.

    Raises:
        ArtifactError: *path* cannot be read, is no bundle, asks for too much, or was changed.
    """
    try:
        files = read_members(path, most=MAX_MEMBERS, limits={MANIFEST: MAX_MANIFEST_BYTES})
        manifest = json.loads(files[MANIFEST])
        validate_manifest(manifest)
        listed = manifest["files"]
        absent = {
            f"{stream}.npz" for stream in STREAMS
        } - listed.keys() or listed.keys() - files.keys()
        if absent:
            raise ValueError(f"{sorted(absent)} missing")
        for name, digest in listed.items():
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise ValueError(f"{name!r} is not what was bundled")
        repro = _from_manifest(manifest, {name: files[name] for name in listed})
        _check_axes(repro)
    except (*UNREADABLE, ResultsError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArtifactError(
            f"not a repro bundle: {reason}",
            path=str(path),
            hint="take the bundle from hil-report/repro/ of the run that failed",
        ) from error
    return repro


def _from_manifest(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Repro:
    streams: dict[str, Any] = {
        stream: _unpack(files[f"{stream}.npz"], manifest["tensors"][stream]) for stream in STREAMS
    }
    artifacts = {
        name.removeprefix("artifacts/"): data
        for name, data in files.items()
        if name.startswith("artifacts/")
    }
    if manifest["main"] not in artifacts:
        raise ValueError(f"no artifact {manifest['main']!r}")
    plain = ("id", "target", "model", "substrate", "main", "frame_axes", "skip_frames", "state")
    tolerance = manifest["tolerance"]
    return Repro(
        artifacts=artifacts,
        **streams,
        **{name: manifest[name] for name in (*plain, "versions", "diagnosis", "silent_chunks")},
        tolerance=Tolerance(tolerance["max_lsb"], tolerance["relative"]),
    )


def _check_axes(repro: Repro) -> None:
    """Every chunk has each output that is compared, and its time axis."""
    for number, chunk in enumerate(repro.expected):
        for name, axis in repro.frame_axes.items():
            if name not in chunk:
                raise ValueError(f"chunk {number}: no expected {name!r}")
            if axis is not None and axis >= chunk[name].ndim:
                raise ValueError(
                    f"frame axis {axis} of {name!r}, which has {chunk[name].ndim} dimensions"
                )


def _pack(chunks: Chunks) -> bytes:
    """Arrays under plain keys: a tensor's name may be no file name."""
    buffer = io.BytesIO()
    arrays = {
        f"c{number}t{place}": tensor
        for number, chunk in enumerate(chunks)
        for place, tensor in enumerate(chunk.values())
    }
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpack(data: bytes, names: Sequence[Sequence[str]]) -> list[dict[str, Array]]:
    arrays = read_npz(io.BytesIO(data), room=len(data))  # bundles store them uncompressed
    return [
        {name: arrays[f"c{number}t{place}"] for place, name in enumerate(chunk)}
        for number, chunk in enumerate(names)
    ]
