"""All that determines an artifact, and its content key. Knows hashes, runs nothing."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from espdl_hil.model import StreamingModel

EXPORTER = "esp-ppq"
_DISTRIBUTIONS = (EXPORTER, "torch", "onnx", "onnxsim", "numpy")
_HARNESS = Path(__file__).resolve().parent.parent
# What shapes an artifact; espdl only checks it.
_SOURCES = ("model/*.py", "targets.py", "quantize/*.py", "streaming/*.py")


@dataclass(frozen=True)
class Recipe:
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
        environment: Name and version, or hash, of what the worker runs.
    """

    source: Path
    source_sha256: str
    name: str
    target: str
    bits: int
    chunk_frames: tuple[int, ...]
    streaming: str
    seed: int
    environment: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, model: StreamingModel, target: str, bits: int) -> Recipe:
        """Make the recipe of a loaded model.

        Args:
            model: A model from ``load_models``. Of what the file declares, ``chunk_frames``,
                ``seed`` and a ``streaming`` that is text may have been replaced since.
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
            environment=_environment(),
        )

    @functools.cached_property
    def key(self) -> str:
        """Content key: SHA-256 of everything but where the model file lies."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def label(self) -> str:
        """What people call it: ``tcn int8 esp32s3``."""
        return f"{self.name} int{self.bits} {self.target}"

    def to_json(self) -> dict[str, Any]:
        """Return all that the key covers as plain data."""
        return {
            "source_sha256": self.source_sha256,
            "name": self.name,
            "target": self.target,
            "bits": self.bits,
            "chunk_frames": list(self.chunk_frames),
            "streaming": self.streaming,
            "seed": self.seed,
            "environment": dict(self.environment),
        }


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _environment() -> tuple[tuple[str, str], ...]:
    try:
        versions = [(name, importlib.metadata.version(name)) for name in _DISTRIBUTIONS]
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, which quantizing needs",
            hint="pip install -c constraints.txt -e .",
        ) from None
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(_HARNESS.glob(pattern)):
            digest.update(f"{path.relative_to(_HARNESS)}\0{hash_file(path)}\0".encode())
    python = ".".join(platform.python_version_tuple()[:2])
    return (*versions, ("python", python), ("harness", digest.hexdigest()))
