"""The streaming model as its author declares it. Knows nothing of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from espdl_hil.model.checks import INPUT, check
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

Shape: TypeAlias = tuple[int, ...]
# Makes one array, or a mapping from input name to array.
Source: TypeAlias = "Callable[[np.random.Generator], Any]"
Pass: TypeAlias = Callable[[Any], Any]  # over the exporter's graph
Streaming: TypeAlias = str | Pass | Sequence[Pass | Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class StreamingModel:
    """One network, and how it is fed in chunks.

    Attributes:
        name: Short and unique; part of test ids. Letters, digits, ``_`` and ``.``.
        build: Returns the ``torch.nn.Module``. Runs in a worker after ``torch.manual_seed(seed)``.
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
        calibration: Makes one calibration batch from a seeded generator, shaped as *input_shape*;
            called several times. The default is what *stimulus* does.
        stimulus: Makes the test sequence likewise. The default is standard normal noise.
        streaming: ``plan`` places caches by analysis; ``auto`` runs the exporter's own conversion;
            a list of the exporter's table entries, or passes over its graph, run as given.
        tolerance: Largest difference that still passes: LSB, or text such as ``"1lsb"``.
        targets: ESP-IDF targets to test.
        ragged: ``refuse``: every chunk size divides the frames. ``flush``: the last chunk is filled
            up with zeros, and only its real frames are compared.
        seed: Seed of weights, calibration and stimulus.
        source: The model file; set by ``load_models``.
    """

    name: str
    build: Callable[[], Any]
    input_shape: Shape | Mapping[str, Shape]
    frame_axis: int | Mapping[str, int]
    chunk_frames: tuple[int, ...]
    bits: tuple[int, ...] = (8,)
    outputs: tuple[str, ...] = ("output",)
    state: Mapping[str, str] = field(default_factory=dict)
    calibration: Source | None = None
    stimulus: Source | None = None
    streaming: Streaming = "plan"
    tolerance: int | str = 0
    targets: tuple[str, ...] = DEVKIT_TARGETS
    ragged: Literal["refuse", "flush"] = "refuse"
    seed: int = 0
    source: Path | None = None

    def __post_init__(self) -> None:
        check(self)

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
