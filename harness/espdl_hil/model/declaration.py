"""The streaming model as its author declares it, checked when it is made. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from espdl_hil.errors import ConfigError
from espdl_hil.model.quantization import BITS, Quantization, check_bits
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

INPUT = "input"  # name of the graph input of a model that has one
MIN_SQNR_DB = {8: 10.0, 16: 30.0}  # a tenth, a thousandth of the signal's energy; docs/models.md
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")

Shape: TypeAlias = tuple[int, ...]
# Makes one array, or a mapping from input name to array.
Source: TypeAlias = "Callable[[np.random.Generator], Any]"
# Real outputs by name in the module's own layout, and the generator as *stimulus* gets it.
Metric: TypeAlias = "Callable[[Mapping[str, np.ndarray[Any, Any]], np.random.Generator], float]"
Pass: TypeAlias = Callable[[Any], Any]  # over the exporter's graph
Streaming: TypeAlias = str | Pass | Sequence[Pass | Mapping[str, Any]] | Mapping[int, str]


@dataclass(frozen=True, eq=False)
class StreamingModel:
    """One network, and how it is fed in chunks.

    Attributes:
        name: Short and unique; part of test ids. Letters, digits, ``_`` and ``.``.
        build: Returns the ``torch.nn.Module``; a module class without arguments will do. Runs in a
            worker after ``torch.manual_seed(seed)``. Instead of it *onnx* or *offline* may say what
            the model is.
        input_shape: Shape of the whole sequence as the module takes it, batch 1; or, for several
            inputs, a mapping from input name to shape in the order of ``forward``'s arguments.
        frame_axis: The time axis of *input_shape*; a mapping when *input_shape* is one.
            Inputs that *state* names have none.
        chunk_frames: Frames of the first input that one step takes; one test per entry. Other
            inputs are cut into the same number of chunks.
        bits: Quantization widths, 8 or 16; one test per entry.
        outputs: Names of what ``forward`` returns, in order.
        state: Graph input to graph output for recurrent models: the output of a step is the
            input of the next, and zero before the first.
        onnx: A float ONNX file, relative to the model file, with fixed shapes. It is quantized and
            exported as a module is. Beside *offline* it is the float network that the files were
            made of, and their accuracy is measured by it.
        offline: An exported ``.espdl`` file of any pipeline, relative to the model file;
            ``{target}`` and ``{bits}`` in the path are replaced. Nothing is quantized: *streaming*
            maps each chunk size to its file, and shapes and axes are declared as the file has them.
        calibration: Makes one calibration batch from a seeded generator, shaped as *input_shape*;
            called several times. The default is what *stimulus* does.
        stimulus: Makes the test sequence likewise. The default is standard normal noise.
        streaming: ``plan`` places caches by analysis; ``auto`` runs the exporter's own conversion;
            a list of the exporter's table entries, or passes over its graph, run as given.
        tolerance: Largest difference that still passes: LSB, or text such as ``"1lsb"``.
        chip_rounding: Of a stream that differs from the offline run because the chip itself takes
            another kernel for another size: ``refuse`` fails it, ``accept`` passes the elements
            that are predicted, with the value that is predicted, and nothing else.
        min_sqnr_db: What the quantized model must keep of the float one, for each output: a number,
            or one by output name. The default is 10 dB at 8 bits and 30 dB at 16.
        quantization: How it is quantized; the default is esp-ppq's.
        metric: How well the task is done, as a number: a function of the outputs, real values by
            name in the module's own layout, and of a generator seeded as the one of *stimulus*, so
            that labels can be drawn again. A row has it for the float model, the device's offline
            run and its stream; it gates nothing. States are left out. Frames that the stream does
            not give (latency) are cut off all three; of a head on the last frames the stream has
            its last answer.
        targets: ESP-IDF targets to test.
        ragged: ``refuse``: every chunk size divides the frames. ``flush``: the last chunk is filled
            up with zeros, and only its real frames are compared.
        frame_seconds: Time that one frame of the first input stands for; boards then tell how much
            of it a chunk takes. None if frames have no rate.
        seed: Seed of weights, calibration and stimulus.
        source: The model file; set by ``load_models``.

    Raises:
        ConfigError: names the model and the first thing that is wrong.
    """

    name: str
    build: Callable[[], Any] | None = None
    input_shape: Shape | Mapping[str, Shape] = ()
    frame_axis: int | Mapping[str, int] = 0
    chunk_frames: tuple[int, ...] = ()
    bits: tuple[int, ...] = (8,)
    outputs: tuple[str, ...] = ("output",)
    state: Mapping[str, str] = field(default_factory=dict)
    onnx: str | None = None
    offline: str | None = None
    calibration: Source | None = None
    stimulus: Source | None = None
    streaming: Streaming = "plan"
    tolerance: int | str = 0
    chip_rounding: Literal["refuse", "accept"] = "refuse"
    min_sqnr_db: float | Mapping[str, float] | None = None
    quantization: Quantization = field(default_factory=Quantization)
    metric: Metric | None = None
    targets: tuple[str, ...] = DEVKIT_TARGETS
    ragged: Literal["refuse", "flush"] = "refuse"
    frame_seconds: float | None = None
    seed: int = 0
    source: Path | None = None

    def __post_init__(self) -> None:
        if self.offline is not None and not self.chunk_frames and _is_file_table(self.streaming):
            object.__setattr__(self, "chunk_frames", tuple(self.streaming_files))
        _check(self)

    @property
    def streaming_files(self) -> dict[int, str]:
        """Chunk size to streaming file of a model whose files come from elsewhere; else nothing."""
        return dict(self.streaming) if isinstance(self.streaming, Mapping) else {}

    @property
    def inputs(self) -> dict[str, Shape]:
        """Shape of each input by name, in the order of ``forward``'s arguments."""
        if isinstance(self.input_shape, Mapping):
            return {name: tuple(shape) for name, shape in self.input_shape.items()}
        return {INPUT: tuple(self.input_shape)}

    @property
    def frame_axes(self) -> dict[str, int]:
        """Time axis of each input that has one."""
        if isinstance(self.frame_axis, Mapping):
            return dict(self.frame_axis)
        return {next(iter(self.inputs)): self.frame_axis}

    @property
    def frames(self) -> int:
        """Frames of the first input with a time axis."""
        name, axis = next(iter(self.frame_axes.items()))
        return self.inputs[name][axis]

    def least_sqnr_db(self, output: str, bits: int) -> float:
        """Return what an output must keep of the float model's at a width, in dB."""
        given = self.min_sqnr_db
        value = given.get(output) if isinstance(given, Mapping) else given
        return MIN_SQNR_DB[bits] if value is None else float(value)

    def chunk_count(self, chunk_frames: int) -> int:
        """Return how many steps the whole sequence takes; the last may be ragged."""
        return math.ceil(self.frames / chunk_frames)

    def chunk_of(self, chunk_frames: int) -> dict[str, int]:
        """Return the frames of one step for each input that has a time axis."""
        shapes = self.inputs
        return {
            name: chunk_frames * shapes[name][axis] // self.frames
            for name, axis in self.frame_axes.items()
        }


def _check(model: StreamingModel) -> None:
    if not (isinstance(model.name, str) and _NAME.fullmatch(model.name)):
        raise ConfigError(f"model name {model.name!r}: expected letters, digits, '_' and '.'")
    _check_source(model)
    _check_inputs(model)
    _check_names(model)
    _check_chunks(model)
    _check_options(model)


def _check_source(model: StreamingModel) -> None:
    given = [name for name in ("build", "onnx", "offline") if getattr(model, name) is not None]
    _require(
        model,
        bool(given),
        "build is not a function that returns the module, and neither onnx nor offline is given",
    )
    if given == ["build"]:
        _require(model, callable(model.build), "build is not a function that returns the module")
        _require(
            model,
            isinstance(model.build, type) or not hasattr(model.build, "forward"),
            f"build is a {type(model.build).__name__}, expected a function that returns one",
            "write build=build, without parentheses",
        )
        return
    of_files = given == ["onnx", "offline"]
    _require(
        model,
        len(given) == 1 or of_files,
        f"{' and '.join(given)} are given: what the model is, is said once",
    )
    for name in given:
        path: Any = getattr(model, name)
        _require(
            model,
            isinstance(path, str) and bool(path),
            f"{name} = {path!r}: expected a path, relative to the model file",
        )
    if "offline" in given:
        _require(
            model,
            _is_file_table(model.streaming),
            f"streaming = {model.streaming!r}: expected a file for each chunk size, "
            '{3: "streaming.espdl"}',
        )
        _require(
            model,
            set(model.chunk_frames) <= set(model.streaming_files),
            f"chunk_frames = {model.chunk_frames!r}: streaming has files for "
            f"{', '.join(map(str, model.streaming_files))}",
        )


def _is_file_table(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(_is(int, chunk) and isinstance(path, str) for chunk, path in value.items())
    )


def _require(model: StreamingModel, condition: bool, message: str, hint: str | None = None) -> None:
    if not condition:
        raise ConfigError(f"model {model.name!r}: {message}", hint=hint)


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(_is(kind, entry) for entry in value)


def _is(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_inputs(model: StreamingModel) -> None:
    shapes: Any = model.input_shape
    axes: Any = model.frame_axis
    named = isinstance(shapes, Mapping)
    _require(
        model,
        named == isinstance(axes, Mapping),
        "input_shape and frame_axis must both be mappings from input name, or neither",
    )
    _require(model, isinstance(model.state, Mapping), "state is not a mapping")
    if not named:
        shapes, axes = {INPUT: shapes}, {INPUT: axes}
    for name, shape in shapes.items():
        _require(
            model,
            _is_tuple_of(int, shape) and len(shape) > 1 and min(shape) > 0,
            f"input_shape of {name!r} is {shape!r}: expected a tuple of two or more positive sizes",
        )
        _require(
            model,
            name in model.state or shape[0] == 1,
            f"input_shape of {name!r} is {shape!r}: the batch, its first size, must be 1",
            f"give forward one sequence, such as {(1, *shape)}"
            if axes.get(name) != 0
            else "put the batch before time: batch_first=True, and frame_axis=1",
        )
    for name, axis in axes.items():
        _require(model, name in shapes, f"frame_axis names {name!r}, which input_shape does not")
        _require(
            model,
            _is(int, axis) and 0 < axis < len(shapes[name]),
            f"frame_axis of {name!r} is {axis!r}: expected 1 to {len(shapes[name]) - 1} for the "
            f"shape {shapes[name]!r}",
        )
    _require(model, len(axes) > 0, "no input has a frame_axis")
    missing = [name for name in shapes if name not in axes and name not in model.state]
    _require(
        model,
        not missing,
        f"input {', '.join(map(repr, missing))} has neither a frame_axis nor an entry in state",
        "a recurrent state needs both ends, such as state={'h0': 'hn'}, and forward returns hn; "
        "what is the same in all frames is an input with frames that are alike",
    )


def _check_names(model: StreamingModel) -> None:
    _require(
        model,
        _is_tuple_of(str, model.outputs),
        f"outputs = {model.outputs!r}: expected a tuple of names",
    )
    names = [*model.inputs, *model.outputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    _require(model, not twice, f"{', '.join(map(repr, twice))} names more than one input or output")
    for source, sink in model.state.items():
        _require(model, source in model.inputs, f"state: {source!r} is not an input")
        _require(model, sink in model.outputs, f"state: {sink!r} is not an output")
        _require(model, source not in model.frame_axes, f"state: {source!r} has a frame_axis")


def _check_chunks(model: StreamingModel) -> None:
    chunks = model.chunk_frames
    _require(
        model,
        model.ragged in ("refuse", "flush"),
        f"ragged = {model.ragged!r}: expected 'refuse' or 'flush'",
    )
    _require(
        model,
        _is_tuple_of(int, chunks) and min(chunks) > 0 and len(set(chunks)) == len(chunks),
        f"chunk_frames = {chunks!r}: expected a tuple of different positive whole numbers",
    )
    for chunk in chunks:
        _require(
            model,
            chunk <= model.frames,
            f"a chunk of {chunk} frames is longer than the {model.frames} frames of the input",
        )
        _require(
            model,
            model.ragged == "flush" or model.frames % chunk == 0,
            f"a chunk of {chunk} frames does not divide the {model.frames} frames of the input",
            "choose a divisor, or declare ragged='flush'",
        )
        for name, axis in model.frame_axes.items():
            frames = model.inputs[name][axis]
            _require(
                model,
                chunk * frames % model.frames == 0,
                f"a chunk of {chunk} of {model.frames} frames is not a whole number of the "
                f"{frames} frames of {name!r}",
            )


def _check_options(model: StreamingModel) -> None:
    for bits in model.bits if isinstance(model.bits, tuple) else ():
        check_bits(bits, f"model {model.name!r}: an entry of bits")
    _require(
        model,
        _is_tuple_of(int, model.bits) and set(model.bits) <= set(BITS),
        f"bits = {model.bits!r}: expected a tuple of {' and '.join(map(str, BITS))}",
    )
    _require(
        model,
        _is_tuple_of(str, model.targets) and set(model.targets) <= set(TARGETS),
        f"targets = {model.targets!r}: expected a tuple out of {', '.join(TARGETS)}",
    )
    rate: Any = model.frame_seconds
    _require(
        model,
        rate is None or ((_is(int, rate) or _is(float, rate)) and 0 < rate < math.inf),
        f"frame_seconds = {rate!r}: expected the seconds of a frame, such as 0.01",
    )
    for name in ("calibration", "stimulus"):
        source = getattr(model, name)
        _require(
            model,
            source is None or callable(source),
            f"{name} is not a function of a random generator",
        )
    _require(
        model,
        model.metric is None or callable(model.metric),
        "metric is not a function of outputs and a random generator",
    )
    given: Any = model.streaming
    entries = given if isinstance(given, list | tuple) else [given]
    _require(
        model,
        model.offline is not None
        or given in ("plan", "auto")
        or (bool(entries) and all(callable(e) or isinstance(e, Mapping) for e in entries)),
        f"streaming = {given!r}: expected 'plan', 'auto', passes, or a list of table entries",
    )
    _require(
        model,
        model.frames not in model.chunk_frames
        or model.offline is not None
        or not (given == "auto" or any(isinstance(entry, Mapping) for entry in entries)),
        f"the exporter's own conversion makes no chunk of the whole sequence ({model.frames} "
        "frames)",
        f"leave {model.frames} out of chunk_frames, or let the harness convert: streaming='plan'",
    )
    _require(
        model,
        _is(int, model.tolerance) or isinstance(model.tolerance, str),
        f"tolerance = {model.tolerance!r}: expected LSB, or text such as '1lsb'",
    )
    _require(
        model,
        model.chip_rounding in ("refuse", "accept"),
        f"chip_rounding = {model.chip_rounding!r}: expected 'refuse' or 'accept'",
    )
    least: Any = model.min_sqnr_db
    limits = least if isinstance(least, Mapping) else {model.outputs[0]: least or 0.0}
    _require(
        model,
        set(limits) <= set(model.outputs)
        and all(_is(int, value) or _is(float, value) for value in limits.values()),
        f"min_sqnr_db = {least!r}: expected dB, or dB by name of an output",
    )
    _require(
        model,
        isinstance(model.quantization, Quantization),
        f"quantization = {model.quantization!r}: expected Quantization(...)",
        "from espdl_hil import Quantization",
    )
    _require(model, _is(int, model.seed), f"seed = {model.seed!r}: expected a whole number")
