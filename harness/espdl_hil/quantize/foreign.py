"""Files from elsewhere as an entry of the store: read, checked, planned; nothing is exported."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import interpreter
from espdl_hil.errors import ConfigError, HarnessError, QuantizeError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.model import importing_from, load_model
from espdl_hil.operators import check_graph
from espdl_hil.quantize.alive import Output, check_alive, check_depends
from espdl_hil.quantize.artifacts import (
    OFFLINE,
    plan_name,
    streaming_name,
    write_arrays,
    write_meta,
)
from espdl_hil.quantize.check import check_same_calibration, check_state
from espdl_hil.quantize.dependencies import Dependencies
from espdl_hil.quantize.foreign_float import run_float
from espdl_hil.quantize.stimulus import make_stimulus
from espdl_hil.streaming import Clock, Severity, analyze, check_export, from_espdl
from espdl_hil.targets import TARGETS, Rounding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph, TensorInfo
    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize.artifacts import Arrays
    from espdl_hil.quantize.recipe import Recipe
    from espdl_hil.streaming import Finding

_ELSEWHERE = "the files come from elsewhere: without the exporter's calibrated graph"
NOT_JUDGED = f"{_ELSEWHERE} neither its reference nor the accuracy against a float model was judged"
NO_REFERENCE = f"{_ELSEWHERE} its reference was not judged"
_TWICE = "quantizing twice may give two models: export both from one graph"
_EXAMPLE = "ESP-DL's streaming example, which compares the last step alone, would say"


def make_foreign(recipe: Recipe, directory: Path) -> dict[str, str]:
    """Leave an entry that ``Artifacts`` reads, of a model that names its files.

    Returns:
        What ``Store.publish`` wants: its files, and what else the model file reads.

    Raises:
        ConfigError: a file is missing, or is not what the model declares.
        ArtifactError: a file is damaged.
        UnsupportedOpError: ESP-DL has no kernel for a node.
        QuantizeError: an output never changes, or does not depend on the stimulus.
        StreamingError: a streaming file is not the offline network.
    """
    dependencies = Dependencies(recipe.source, directory)
    with dependencies.recording(), importing_from(recipe.source.parent):
        model = replace(load_model(recipe.source), seed=recipe.seed)
        made = make_stimulus(model)
    folder, judged = recipe.source.parent, NOT_JUDGED
    found = dependencies.hashes(folder)

    def read(path: Path) -> bytes:
        data = _read(path, model)
        found[os.path.relpath(path, folder)] = hashlib.sha256(data).hexdigest()
        return data

    for name, path in _paths(model, recipe).items():
        (directory / name).write_bytes(read(path))
    offline = load_graph(directory / OFFLINE)
    names = _names(model, offline)
    axes = _frame_axes(model, offline, names, recipe.bits)
    check_state(offline, model.state)
    check_graph(offline, recipe.target)
    stimulus = {names[name]: array for name, array in made.items()}
    inputs = {
        info.name: quantize(stimulus[info.name], info, recipe.target) for info in offline.inputs
    }
    arrays = {"stimulus": stimulus, "inputs_q": inputs}
    if model.onnx is not None:
        judged, where = NO_REFERENCE, f"model {model.name!r}: {model.onnx}"
        data = read(folder / model.onnx)
        arrays["float_outputs"] = run_float(data, where, offline, stimulus)
    write_arrays(directory, arrays)
    whole = _run(offline, inputs, recipe.target)
    if whole:
        again = interpreter.load(offline, recipe.target)
        check_depends(whole, inputs, model.state, again.step)
    lint: dict[int, list[Finding]] = {}
    notes: dict[int, list[str]] = {}
    for chunk in recipe.chunk_frames:
        streaming = load_graph(directory / streaming_name(chunk))
        frames = _chunk_frames(model, names, streaming, axes, chunk)
        analysis = analyze(from_espdl(offline), Clock.of(axes, frames, model.state))
        lint[chunk] = check_export(analysis, streaming)
        last = _last_step(whole, streaming, inputs, axes, recipe.target)
        if all(finding.severity is not Severity.ERROR for finding in lint[chunk]):
            _require_one_calibration(offline, streaming, chunk, model, last)
            check_graph(streaming, recipe.target)
        if analysis.planned is not None:
            ends = {end.output: end.frame_axis for end in analysis.planned.alignments}
            said = _said(offline, whole, arrays.get("float_outputs", {}), ends, model)
            lint[chunk] += check_alive(said)
            (directory / plan_name(chunk)).write_text(analysis.planned.to_json())
        notes[chunk] = [judged, *last]
    layouts = {info.name: list(range(len(info.shape))) for info in offline.outputs}
    write_meta(directory, recipe, analysis, lint, layouts=layouts, log=[], notes=notes)
    recipe.check_source()
    return found


def quantize(values: NDArray[Any], info: TensorInfo, target: str) -> NDArray[Any]:
    """Quantize real values as ESP-DL does on a target; what a file keeps as float stays."""
    if info.dtype.kind == "f":
        return values.astype(info.dtype)
    scaled = np.ldexp(values.astype(np.float64), -info.exponent)
    half_even = TARGETS[target].rounding is Rounding.HALF_EVEN
    rounded = np.rint(scaled) if half_even else np.floor(scaled + 0.5)
    limits = np.iinfo(info.dtype)
    return np.clip(rounded, limits.min, limits.max).astype(info.dtype)


def _paths(model: StreamingModel, recipe: Recipe) -> dict[str, Path]:
    """Where each file of the entry comes from."""
    streaming = model.streaming_files
    given = {
        OFFLINE: model.offline,
        **{streaming_name(c): streaming[c] for c in recipe.chunk_frames},
    }
    folder = recipe.source.parent
    return {
        name: _absolute(folder / str(path).format(target=recipe.target, bits=recipe.bits))
        for name, path in given.items()
    }


def _absolute(path: Path) -> Path:
    """A path without ``..``; a link stays one, for it may lead elsewhere the next time."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path has no such thing


def _read(path: Path, model: StreamingModel) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"model {model.name!r}: {path} cannot be read: {error.strerror or error}",
            hint="paths are relative to the model file; {target} and {bits} in them are replaced",
        ) from None


def _frame_axes(
    model: StreamingModel, offline: Graph, names: Mapping[str, str], bits: int
) -> dict[str, int]:
    """The time axis of each input of the file that has one, by the file's own name.

    Raises:
        ConfigError: the file's inputs or outputs are not what is declared.
    """
    declared = {names[name]: shape for name, shape in model.inputs.items()}
    for info in offline.inputs:
        if info.shape != declared[info.name]:
            raise ConfigError(
                f"model {model.name!r}: input {info.name!r} of the offline file has the shape "
                f"{info.shape}, declared is {declared[info.name]}",
                hint="declare shapes and frame_axis as the file has them, channels last",
            )
        # ESP-DL keeps the cell state of an int8 LSTM in int16.
        framed = info.name in map(names.get, model.frame_axes)
        if framed and info.dtype.kind != "f" and info.dtype.itemsize * 8 != bits:
            raise ConfigError(
                f"model {model.name!r}: input {info.name!r} of the offline file is {info.dtype}, "
                f"declared is bits=({bits},)"
            )
    missing = set(model.state.values()) - {info.name for info in offline.outputs}
    if missing:
        raise ConfigError(
            f"model {model.name!r}: the offline file has no output {', '.join(sorted(missing))}"
        )
    return {names[name]: axis for name, axis in model.frame_axes.items()}


def _names(model: StreamingModel, offline: Graph) -> dict[str, str]:
    """Declared name of each input to the file's; the only one needs no name."""
    there = [info.name for info in offline.inputs]
    declared = list(model.inputs)
    if len(there) == len(declared) == 1:
        return {declared[0]: there[0]}
    if set(there) != set(declared):
        raise ConfigError(
            f"model {model.name!r}: the offline file has the inputs {', '.join(there)}, declared "
            f"are {', '.join(declared)}",
            hint="input_shape and frame_axis are mappings from input name, state included",
        )
    return {name: name for name in declared}


def _chunk_frames(
    model: StreamingModel,
    names: Mapping[str, str],
    streaming: Graph,
    axes: Mapping[str, int],
    chunk: int,
) -> dict[str, int]:
    """Frames of each input in a step, as the streaming file has them.

    Raises:
        ConfigError: the file is for chunks of another size.
    """
    wanted = {names[name]: frames for name, frames in model.chunk_of(chunk).items()}
    found = {info.name: info.shape for info in streaming.inputs}
    for name, frames in wanted.items():
        if name not in found or found[name][axes[name]] != frames:
            has = f"shape {found[name]}" if name in found else "no such input"
            raise ConfigError(
                f"model {model.name!r}: the streaming file for chunks of {chunk} frames has {has} "
                f"for input {name!r}, expected {frames} frames on axis {axes[name]}"
            )
    return wanted


def _require_one_calibration(
    offline: Graph, streaming: Graph, chunk: int, model: StreamingModel, notes: list[str]
) -> None:
    try:
        check_same_calibration(offline, streaming, chunk)
    except QuantizeError as error:
        raise StreamingError(
            error.message,
            rule="S000",
            node=model.name,
            hint="; ".join((_TWICE, *notes)),
        ) from None


def _run(offline: Graph, inputs: Arrays, target: str) -> Arrays:
    """The outputs of the offline file for the stimulus; empty where it does not run."""
    try:
        return interpreter.load(offline, target).step(inputs)
    except HarnessError:
        return {}


def _said(
    offline: Graph, whole: Arrays, real: Arrays, axes: Mapping[str, int], model: StreamingModel
) -> dict[str, Output]:
    """The outputs of the offline file, but for state, as they are judged to be alive."""
    return {
        info.name: Output(
            whole[info.name],
            real.get(info.name),
            info.exponent if info.exponents else None,
            axes.get(info.name, -1),
        )
        for info in offline.outputs
        if info.name in whole and info.name not in model.state.values()
    }


def _last_step(
    whole: Arrays, streaming: Graph, inputs: Arrays, axes: Mapping[str, int], target: str
) -> list[str]:
    """What ESP-DL's streaming example would say: it compares the end of the first output alone.

    Nothing where the files have more than the one input of the example.
    """
    if len(inputs) != 1:
        return []
    name, axis = next(iter(axes.items()))
    frames = next(info.shape[axis] for info in streaming.inputs)
    count = inputs[name].shape[axis] // frames
    try:
        session = interpreter.load(streaming, target)
        whole_chunks = np.take(inputs[name], range(count * frames), axis)
        for part in np.split(whole_chunks, count, axis):
            step = session.step({name: np.ascontiguousarray(part)})
    except HarnessError:
        step = {}
    if not (whole and step):
        return [f"{_EXAMPLE}: nothing, the files do not run"]
    output = min(step)  # the first of a sorted map
    seen = step[output].tobytes()
    says = "matches" if whole[output].tobytes().endswith(seen) else "does not match"
    return [f"{_EXAMPLE}: {says}"]
