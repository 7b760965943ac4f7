"""Recorded vectors of kernels: a model, its inputs, and every node's output. Runs nothing."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import ConfigError
from espdl_hil.espdl import load_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.espdl import Graph


@dataclass(frozen=True)
class VectorStream:
    """Steps from a reset.

    Attributes:
        inputs: Graph inputs of each step, in the file's layout and exponent.
        outputs: Node outputs of each step, in execution order.
    """

    inputs: Sequence[Tensors]
    outputs: Sequence[Tensors]


@dataclass(frozen=True)
class Vector:
    """One recorded case.

    Attributes:
        name: Of its file, without suffix.
        target: The chip whose kernels were recorded.
        model: An ``.espdl`` file.
        graph: What it says.
        streams: What was recorded.
        settles: The unknown of ``docs/operators.md`` that a run on silicon settles; empty for none.
    """

    name: str
    target: str
    model: bytes
    graph: Graph
    streams: Sequence[VectorStream]
    settles: str = ""


def find_vectors(paths: Iterable[Path], target: str) -> list[Path]:
    """Return the vectors of one target in files and folders, by name.

    Raises:
        ConfigError: there is none.
    """
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob(f"*.{target}.int*.npz")) if path.is_dir() else [path]
    if not found:
        raise ConfigError(
            f"no recorded vectors for {target}",
            hint="name a folder of them with --vectors; a checkout of the project has them in "
            "tests/golden, tests/golden_chip and tests/unknowns",
        )
    return found


def read_vector(path: Path) -> Vector:
    """Read one ``.npz`` file; ``tests/golden/README.md`` has its layout.

    Raises:
        ConfigError: it is no such file.
        ArtifactError: its model is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            index = json.loads(stored["index"].tobytes())
            tensors = {place: stored[key] for key, place in index["tensors"].items()}
        model = tensors.pop("model").tobytes()
        streams = tuple(
            _stream(number, plan, index["inputs"], tensors)
            for number, plan in enumerate(index["streams"])
        )
        target, settles = str(index["target"]), str(index.get("settles", ""))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path} is no recorded vector: {type(error).__name__}: {error}"
        ) from None
    return Vector(path.stem, target, model, load_graph(model), streams, settles)


def _stream(
    number: int, plan: Mapping[str, Any], inputs: Sequence[str], tensors: Tensors
) -> VectorStream:
    def at(step: int, side: str, name: str) -> Array:
        return tensors[f"s{number}/t{step}/{side}" + (name if name[0] == "/" else f"/{name}")]

    steps = range(plan["steps"])
    return VectorStream(
        inputs=[{name: at(step, "in", name) for name in inputs} for step in steps],
        outputs=[{name: at(step, "out", name) for name in plan["order"]} for step in steps],
    )
