"""The streaming model as its author declares it, checked when it is made. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_Mistake: TypeAlias = str | tuple[str, str]  # a message, or it and a hint
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
        mistake = next(_mistakes(self), None)
        if mistake is not None:
            message, hint = (mistake, None) if isinstance(mistake, str) else mistake
            raise ConfigError(f"model {self.name!r}: {message}", hint=hint)

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


def _mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    """What is wrong; each check relies on those before it."""
    if not (isinstance(model.name, str) and _NAME.fullmatch(model.name)):
        raise ConfigError(f"model name {model.name!r}: expected letters, digits, '_' and '.'")
    yield from _source_mistakes(model)
    yield from _input_mistakes(model)
    yield from _name_mistakes(model)
    yield from _chunk_mistakes(model)
    yield from _option_mistakes(model)


def _source_mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    given = [name for name in ("build", "onnx", "offline") if getattr(model, name) is not None]
    no_function = "build is not a function that returns the module"
    if not given:
        yield f"{no_function}, and neither onnx nor offline is given"
    if given == ["build"]:
        if not callable(model.build):
            yield no_function
        if hasattr(model.build, "forward") and not isinstance(model.build, type):
            yield (
                f"build is a {type(model.build).__name__}, expected a function that returns one",
                "write build=build, without parentheses",
            )
        return
    if len(given) > 1 and given != ["onnx", "offline"]:
        yield f"{' and '.join(given)} are given: what the model is, is said once"
    for name in given:
        path: Any = getattr(model, name)
        if not (isinstance(path, str) and path):
            yield f"{name} = {path!r}: expected a path, relative to the model file"
    if model.offline is not None:
        if not _is_file_table(model.streaming):
            yield (
                f"streaming = {model.streaming!r}: expected a file for each chunk size, "
                '{3: "streaming.espdl"}'
            )
        if not set(model.chunk_frames) <= set(model.streaming_files):
            yield (
                f"chunk_frames = {model.chunk_frames!r}: streaming has files for "
                f"{', '.join(map(str, model.streaming_files))}"
            )


def _is_file_table(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(_is(int, chunk) and isinstance(path, str) for chunk, path in value.items())
    )


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(_is(kind, entry) for entry in value)


def _is(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is(int, value) or _is(float, value)


def _input_mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    shapes: Any = model.input_shape
    axes: Any = model.frame_axis
    named = isinstance(shapes, Mapping)
    if named != isinstance(axes, Mapping):
        yield "input_shape and frame_axis must both be mappings from input name, or neither"
    if not isinstance(model.state, Mapping):
        yield "state is not a mapping"
    if not named:
        shapes, axes = {INPUT: shapes}, {INPUT: axes}
    for name, shape in shapes.items():
        where = f"input_shape of {name!r} is {shape!r}"
        if not (_is_tuple_of(int, shape) and len(shape) > 1 and min(shape) > 0):
            yield f"{where}: expected a tuple of two or more positive sizes"
        if name not in model.state and shape[0] != 1:
            hint = f"give forward one sequence, such as {(1, *shape)}"
            if axes.get(name) == 0:
                hint = "put the batch before time: batch_first=True, and frame_axis=1"
            yield f"{where}: the batch, its first size, must be 1", hint
    for name, axis in axes.items():
        if name not in shapes:
            yield f"frame_axis names {name!r}, which input_shape does not"
        if not (_is(int, axis) and 0 < axis < len(shapes[name])):
            yield (
                f"frame_axis of {name!r} is {axis!r}: expected 1 to {len(shapes[name]) - 1} for "
                f"the shape {shapes[name]!r}"
            )
    if not axes:
        yield "no input has a frame_axis"
    missing = [name for name in shapes if name not in axes and name not in model.state]
    if missing:
        yield (
            f"input {', '.join(map(repr, missing))} has neither a frame_axis nor an entry in state",
            "a recurrent state needs both ends, such as state={'h0': 'hn'}, and forward returns "
            "hn; what is the same in all frames is an input with frames that are alike",
        )


def _name_mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    if not _is_tuple_of(str, model.outputs):
        yield f"outputs = {model.outputs!r}: expected a tuple of names"
    names = [*model.inputs, *model.outputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"{', '.join(map(repr, twice))} names more than one input or output"
    for source, sink in model.state.items():
        if source not in model.inputs:
            yield f"state: {source!r} is not an input"
        if sink not in model.outputs:
            yield f"state: {sink!r} is not an output"
        if source in model.frame_axes:
            yield f"state: {source!r} has a frame_axis"


def _chunk_mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    chunks, whole = model.chunk_frames, model.frames
    if model.ragged not in ("refuse", "flush"):
        yield f"ragged = {model.ragged!r}: expected 'refuse' or 'flush'"
    if not (_is_tuple_of(int, chunks) and min(chunks) > 0 and len(set(chunks)) == len(chunks)):
        yield f"chunk_frames = {chunks!r}: expected a tuple of different positive whole numbers"
    for chunk in chunks:
        if chunk > whole:
            yield f"a chunk of {chunk} frames is longer than the {whole} frames of the input"
        if model.ragged == "refuse" and whole % chunk:
            yield (
                f"a chunk of {chunk} frames does not divide the {whole} frames of the input",
                "choose a divisor, or declare ragged='flush'",
            )
        for name, axis in model.frame_axes.items():
            frames = model.inputs[name][axis]
            if chunk * frames % whole:
                yield (
                    f"a chunk of {chunk} of {whole} frames is not a whole number of the "
                    f"{frames} frames of {name!r}"
                )


def _option_mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    for bits in model.bits if isinstance(model.bits, tuple) else ():
        check_bits(bits, f"model {model.name!r}: an entry of bits")
    if not _is_tuple_of(int, model.bits):
        yield f"bits = {model.bits!r}: expected a tuple of {' and '.join(map(str, BITS))}"
    if not (_is_tuple_of(str, model.targets) and set(model.targets) <= set(TARGETS)):
        yield f"targets = {model.targets!r}: expected a tuple out of {', '.join(TARGETS)}"
    rate: Any = model.frame_seconds
    if rate is not None and not (_is_number(rate) and 0 < rate < math.inf):
        yield f"frame_seconds = {rate!r}: expected the seconds of a frame, such as 0.01"
    for name in ("calibration", "stimulus"):
        if getattr(model, name) is not None and not callable(getattr(model, name)):
            yield f"{name} is not a function of a random generator"
    if model.metric is not None and not callable(model.metric):
        yield "metric is not a function of outputs and a random generator"
    if model.offline is None:
        yield from _conversion_mistakes(model)
    if not (_is(int, model.tolerance) or isinstance(model.tolerance, str)):
        yield f"tolerance = {model.tolerance!r}: expected LSB, or text such as '1lsb'"
    if model.chip_rounding not in ("refuse", "accept"):
        yield f"chip_rounding = {model.chip_rounding!r}: expected 'refuse' or 'accept'"
    least: Any = model.min_sqnr_db
    default = 0.0 if least is None else least
    limits = least if isinstance(least, Mapping) else {model.outputs[0]: default}
    if not (set(limits) <= set(model.outputs) and all(map(_is_number, limits.values()))):
        yield f"min_sqnr_db = {least!r}: expected dB, or dB by name of an output"
    if not all(-math.inf < limit < math.inf for limit in limits.values()):
        yield (
            f"min_sqnr_db = {least!r}: expected a finite number of dB",
            "leave it out for 10 dB at 8 bits and 30 dB at 16",
        )
    if not isinstance(model.quantization, Quantization):
        yield (
            f"quantization = {model.quantization!r}: expected Quantization(...)",
            "from espdl_hil import Quantization",
        )
    if not _is(int, model.seed):
        yield f"seed = {model.seed!r}: expected a whole number"


def _conversion_mistakes(model: StreamingModel) -> Iterator[_Mistake]:
    given: Any = model.streaming
    entries = given if isinstance(given, list | tuple) else [given]
    known = bool(entries) and all(callable(e) or isinstance(e, Mapping) for e in entries)
    if given not in ("plan", "auto") and not known:
        yield f"streaming = {given!r}: expected 'plan', 'auto', passes, or a list of table entries"
    of_exporter = given == "auto" or any(isinstance(entry, Mapping) for entry in entries)
    if of_exporter and model.frames in model.chunk_frames:
        yield (
            "the exporter's own conversion makes no chunk of the whole sequence "
            f"({model.frames} frames)",
            f"leave {model.frames} out of chunk_frames, or let the harness convert: "
            "streaming='plan'",
        )
