"""What determines an artifact, and the content keys. Knows hashes, runs nothing."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import ConfigError, QuantizeError, StreamingError

if TYPE_CHECKING:
    from espdl_hil.errors import HarnessError
    from espdl_hil.model import Quantization, StreamingModel

    Environment = tuple[tuple[str, str], ...]

_HARNESS = Path(__file__).resolve().parent.parent
# What shapes a trace, and what else shapes an artifact and the lint findings kept with it.
_TRACE_DISTRIBUTIONS = ("torch", "onnx", "onnxsim", "numpy")
_TRACE_SOURCES = ("model/*.py", "quantize/*.py")
_DISTRIBUTIONS = ("esp-ppq", *_TRACE_DISTRIBUTIONS)
_FOREIGN_DISTRIBUTIONS = ("numpy",)
_SOURCES = (
    *_TRACE_SOURCES,
    *("targets.py", "espdl/*.py", "operators/*.py", "reference/record.py", "streaming/*.py"),
)


class Keyed:
    """Base of what the store keeps entries of: a frozen dataclass that names all its inputs.

    Attributes:
        source: The model file.
        source_sha256: Hash of its bytes.
    """

    source: Path
    source_sha256: str

    @functools.cached_property
    def key(self) -> str:
        """Content key: SHA-256 of everything but where the model file lies."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def label(self) -> str:
        """What people call it."""
        raise NotImplementedError

    def check_source(self) -> None:
        """See that what has just been run is what the key covers.

        Raises:
            QuantizeError: stage ``build``; the model file is no longer the one that was collected.
        """
        if hash_path(self.source) != self.source_sha256:
            raise QuantizeError(
                f"{self.source} has been changed while it was being quantized",
                stage="build",
                hint="run it again",
            )

    def to_json(self) -> dict[str, Any]:
        """Return all that the key covers as plain data."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        del data["source"]
        lists = {name: list(value) for name, value in data.items() if isinstance(value, tuple)}
        plain = {n: value.to_json() for n, value in data.items() if hasattr(value, "to_json")}
        return {**data, **lists, **plain, "environment": dict(data["environment"])}


@dataclass(frozen=True)
class Trace(Keyed):
    """The float side of one model, whatever it is quantized to.

    Attributes:
        source: The model file.
        source_sha256: Hash of its bytes.
        seed: Seed of weights, calibration and stimulus.
        batches: Calibration batches.
        environment: Name and version, or hash, of what makes the trace.
    """

    source: Path
    source_sha256: str
    seed: int
    batches: int
    environment: Environment

    @property
    def label(self) -> str:
        """What people call it: ``tcn float``."""
        return f"{self.source.stem} float"


@dataclass(frozen=True)
class Recipe(Keyed):
    """One model at one width for one target, with all its chunk sizes.

    Attributes:
        source: The model file.
        source_sha256: Hash of its bytes. Files that it imports or reads are hashed by the
            worker, and compared when the artifact is read (see ``store.py``).
        name: The model's name.
        target: ESP-DL target name.
        bits: Quantization width, 8 or 16.
        chunk_frames: Frames a step, one streaming file each.
        streaming: ``plan`` or ``auto``; ``given`` for a table or passes of the model file.
        seed: Seed of weights, calibration and stimulus.
        quantization: How it is quantized.
        environment: Name and version, or hash, of what the worker runs.
        foreign: Whether the files come from elsewhere, so that nothing is exported.
    """

    source: Path
    source_sha256: str
    name: str
    target: str
    bits: int
    chunk_frames: tuple[int, ...]
    streaming: str
    seed: int
    quantization: Quantization
    environment: Environment
    foreign: bool = False

    @classmethod
    def of(cls, model: StreamingModel, target: str, bits: int) -> Recipe:
        """Make the recipe of a loaded model.

        Args:
            model: A model from ``load_models``. Of what the file declares, ``chunk_frames``,
                ``seed``, ``quantization`` and a ``streaming`` that is text may have been replaced
                since.
            target: ESP-DL target name.
            bits: Quantization width.

        Raises:
            ConfigError: the model did not come from a file, or the exporter is not installed.
        """
        if model.source is None:
            raise ConfigError(
                f"model {model.name!r} has no source file",
                hint="load it with espdl_hil.model.load_models: the worker runs the file again",
            )
        return cls(
            source=model.source,
            source_sha256=hash_file(model.source),
            name=model.name,
            target=target,
            bits=bits,
            chunk_frames=tuple(model.chunk_frames),
            streaming=model.streaming if isinstance(model.streaming, str) else "given",
            seed=model.seed,
            quantization=model.quantization,
            environment=_environment(
                _DISTRIBUTIONS if model.offline is None else _FOREIGN_DISTRIBUTIONS, _SOURCES
            ),
            foreign=model.offline is not None,
        )

    @property
    def label(self) -> str:
        """What people call it: ``tcn int8 esp32s3``."""
        return f"{self.name} int{self.bits} {self.target}"

    def without(self, refusal: HarnessError) -> Recipe | None:
        """What is left without the chunk sizes that alone are refused; None if nothing is."""
        if not isinstance(refusal, StreamingError):
            return None
        faults = refusal.every
        if not all(fault.chunk_frames for fault in faults):
            return None
        refused = {chunk for fault in faults for chunk in fault.chunk_frames}
        fine = tuple(chunk for chunk in self.chunk_frames if chunk not in refused)
        return replace(self, chunk_frames=fine) if fine else None

    @functools.cached_property
    def trace(self) -> Trace:
        """The trace that this recipe starts from; equal for all targets and widths."""
        environment = _environment(_TRACE_DISTRIBUTIONS, _TRACE_SOURCES)
        batches = self.quantization.batches
        return Trace(self.source, self.source_sha256, self.seed, batches, environment)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """Return what is to be told apart of a path that a model file looked for.

    The SHA-256 of a file, or of the names in a folder but for hidden ones and compiled modules;
    empty where there is neither, or none that can be read.
    """
    try:
        if path.is_dir():
            names = sorted(os.listdir(path))  # noqa: PTH208 - names are all that is wanted
            kept = [name for name in names if name != "__pycache__" and name[0] != "."]
            return hashlib.sha256(json.dumps(kept).encode()).hexdigest()
        return hash_file(path) if path.is_file() else ""
    except OSError:
        return ""


@functools.cache
def _environment(distributions: tuple[str, ...], sources: tuple[str, ...]) -> Environment:
    try:
        versions = [(name, importlib.metadata.version(name)) for name in distributions]
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, which quantizing needs",
            hint="pip install -c constraints.txt -e .",
        ) from None
    digest = hashlib.sha256()
    for pattern in sources:
        for path in sorted(_HARNESS.glob(pattern)):
            digest.update(f"{path.relative_to(_HARNESS)}\0{hash_file(path)}\0".encode())
    python = ".".join(platform.python_version_tuple()[:2])
    return (*versions, ("python", python), ("harness", digest.hexdigest()))
