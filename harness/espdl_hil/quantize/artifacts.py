"""What the worker made of one recipe. Knows the files of a store entry, not how they came."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.quantize.log_rules import LogLine
from espdl_hil.quantize.recipe import hash_file
from espdl_hil.reference import RECORD, read_record
from espdl_hil.streaming import Finding, Flow, StreamingPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from espdl_hil.quantize.recipe import Recipe
    from espdl_hil.reference import ReferenceRecord
    from espdl_hil.streaming import Analysis

    Arrays = dict[str, NDArray[Any]]

OFFLINE = "offline.espdl"
ARRAYS = "arrays.npz"
ACTIVATIONS = "activations.npz"
META = "meta.json"
LOG = "exporter.log"


def streaming_name(chunk_frames: int) -> str:
    """Return the name of the streaming file of one chunk size."""
    return f"streaming-{chunk_frames}.espdl"


def plan_name(chunk_frames: int) -> str:
    """Return the name of the plan file of one chunk size."""
    return f"plan-{chunk_frames}.json"


@dataclass(frozen=True)
class Artifacts:
    """A verified store entry; its arrays are read when they are asked for.

    Attributes:
        directory: The entry. Owned by the store: read only.
    """

    directory: Path

    @property
    def offline(self) -> Path:
        """The non-streaming file, whole sequence."""
        return self.directory / OFFLINE

    @functools.cached_property
    def streaming(self) -> dict[int, Path]:
        """The streaming file of each chunk size."""
        return {chunk: self.directory / streaming_name(chunk) for chunk in self._chunks}

    @functools.cached_property
    def plans(self) -> dict[int, StreamingPlan]:
        """The plan of each chunk size.

        With ``streaming="auto"`` or a given conversion it is what the analysis expects of the
        file, not what was done to it; missing where the analysis refuses the network.
        """
        plans = {chunk: self.directory / plan_name(chunk) for chunk in self._chunks}
        return {
            chunk: StreamingPlan.from_json(path.read_text())
            for chunk, path in plans.items()
            if path.exists()
        }

    @property
    def stimulus(self) -> Arrays:
        """Input name to float32, the whole sequence in the module's own layout."""
        return self._arrays["stimulus"]

    @property
    def inputs_q(self) -> Arrays:
        """Input name to the quantized stimulus, in the file's type, layout and exponent."""
        return self._arrays["inputs_q"]

    @property
    def reference(self) -> Arrays:
        """Output name to esp-ppq's own quantized execution, in the file's type and layout.

        Empty for files from elsewhere.
        """
        return self._arrays.get("reference", {})

    @functools.cached_property
    def recorded(self) -> ReferenceRecord:
        """Every tensor of that execution, as far as the offline file has it."""
        return read_record(self.directory / RECORD)

    @property
    def float_outputs(self) -> Arrays:
        """Output name to the float model's float32 output, in the file's layout.

        Empty for files from elsewhere.
        """
        return self._arrays.get("float_outputs", {})

    @functools.cached_property
    def activations(self) -> Arrays:
        """Tensor name to its first frames in the float network, float32 in the file's layout.

        The offline file's own tensors, and such as the exporter has fused away; nothing for files
        from elsewhere.
        """
        if not (self.directory / ACTIVATIONS).exists():
            return {}
        with np.load(self.directory / ACTIVATIONS, allow_pickle=False) as file:
            return {key.partition("/")[2]: file[key] for key in file.files}

    @functools.cached_property
    def meta(self) -> dict[str, Any]:
        """Versions, hashes, seconds a stage, the exporter's log, and the lint findings."""
        data: dict[str, Any] = json.loads((self.directory / META).read_text())
        return data

    @property
    def frame_axes(self) -> dict[str, int]:
        """Tensor name of the offline file to its time axis, where it has one."""
        return dict(self.meta["frame_axes"])

    @property
    def layouts(self) -> dict[str, tuple[int, ...]]:
        """Output name to the permutation from the module's axes to the file's."""
        return {name: tuple(axes) for name, axes in self.meta["layouts"].items()}

    @property
    def log(self) -> list[LogLine]:
        """What the exporter logged, classified."""
        return [LogLine.from_json(line) for line in self.meta["log"]]

    def notes(self, chunk_frames: int) -> tuple[str, ...]:
        """What a reader of a row has to know of its files, a sentence each."""
        return tuple(self.meta["notes"][str(chunk_frames)])

    @functools.cached_property
    def lint(self) -> dict[int, list[Finding]]:
        """What is wrong with the streaming file of each chunk size, errors first."""
        return {
            int(chunk): [Finding.from_json(finding) for finding in findings]
            for chunk, findings in self.meta["lint"].items()
        }

    @property
    def _chunks(self) -> list[int]:
        return list(self.meta["recipe"]["chunk_frames"])

    @functools.cached_property
    def _arrays(self) -> dict[str, Arrays]:
        return read_arrays(self.directory)


def read_arrays(directory: Path) -> dict[str, Arrays]:
    """Return the arrays of an entry by group and name, as ``write_arrays`` took them."""
    groups: dict[str, Arrays] = {}
    with np.load(directory / ARRAYS, allow_pickle=False) as file:
        for key in file.files:
            group, name = key.split("/", 1)
            groups.setdefault(group, {})[name] = file[key]
    return groups


def write_meta(
    directory: Path,
    recipe: Recipe,
    analysis: Analysis,
    lint: Mapping[int, Sequence[Finding]],
    **more: Any,
) -> None:
    """Write the meta data of an entry, whose files are complete.

    Args:
        directory: Of the entry.
        recipe: What it was made of.
        analysis: Of the offline network.
        lint: What is wrong with the streaming file of each chunk size.
        more: ``layouts``, ``log``, ``notes``, and what else is known of how it was made.
    """
    flows = {n: found.axis for n, found in analysis.timing.items() if isinstance(found, Flow)}
    meta = {
        "recipe": recipe.to_json(),
        "files": {path.name: hash_file(path) for path in sorted(directory.glob("*.espdl"))},
        "frame_axes": flows,
        "lint": {c: [finding.to_json() for finding in found] for c, found in lint.items()},
        **more,
    }
    (directory / META).write_text(json.dumps(meta, indent=1))


def write_arrays(directory: Path, groups: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Write the arrays of an entry: named arrays by group."""
    flat: dict[str, Any] = {
        f"{group}/{name}": array for group, named in groups.items() for name, array in named.items()
    }
    np.savez(directory / ARRAYS, **flat)
