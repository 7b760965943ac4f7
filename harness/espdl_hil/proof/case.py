"""Which model, on which target, at which width and chunk size: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.compare import parse_tolerance
from espdl_hil.errors import ConfigError
from espdl_hil.model import StreamingModel, load_models
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from espdl_hil.compare import Tolerance


@dataclass(frozen=True)
class Case:
    """One row: a model at one width and chunk size on one target.

    Attributes:
        target: ESP-IDF target name.
        model: The model as its file declares it.
        bits: Quantization width, 8 or 16.
        chunk_frames: Frames of the main input that one step takes.
    """

    target: str
    model: StreamingModel
    bits: int
    chunk_frames: int

    @property
    def id(self) -> str:
        """Test id, ``esp32s3-tcn-int8-chunk3``."""
        return f"{self.target}-{self.model.name}-int{self.bits}-chunk{self.chunk_frames}"

    @property
    def chunk_count(self) -> int:
        """Steps that the whole stimulus takes."""
        return self.model.chunk_count(self.chunk_frames)

    @property
    def tolerance(self) -> Tolerance:
        """The model's declared tolerance for streaming against offline; exact by default."""
        return parse_tolerance(str(self.model.tolerance))


def make_cases(model_paths: Sequence[Path], targets: Iterable[str]) -> list[Case]:
    """Load model files, or folders of them, and cross them with targets, widths and chunk sizes.

    The cases are grouped by target, in the order of the model files.

    Raises:
        ConfigError: no model file was found, one does not load, or no model names a target.
    """
    if not model_paths:
        raise ConfigError(
            "no models to test: there is no ./models folder",
            hint="name a model file or a folder of them with --hil-models PATH",
        )
    models = load_models(model_paths).values()
    return cross(models, tuple(targets))


def cross(models: Iterable[StreamingModel], targets: Sequence[str]) -> list[Case]:
    """Return one case for each model, target, width and chunk size.

    Raises:
        ConfigError: a tolerance is not understood, or no model names one of the targets.
    """
    models = tuple(models)
    cases = [
        Case(target, model, bits, chunk_frames)
        for target in targets
        for model in models
        if _is_for(model, target)
        for bits in model.bits
        for chunk_frames in model.chunk_frames
    ]
    if not cases:
        wanted = "; ".join(f"{model.name}: {', '.join(model.targets)}" for model in models)
        raise ConfigError(
            f"no model is for {' or '.join(targets)}", hint=f"the models' targets are {wanted}"
        )
    for case in cases:
        try:
            _ = case.tolerance
        except ConfigError as error:
            raise ConfigError(
                f"{case.model.source}: model {case.model.name!r}: {error.message}", hint=error.hint
            ) from None
    return cases


def _is_for(model: StreamingModel, target: str) -> bool:
    """Whether a model names a target, or all that are tested by default, which means any chip."""
    return not model.targets or target in model.targets or set(DEVKIT_TARGETS) <= {*model.targets}
