"""Which model, on which target, at which width and chunk size: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.compare import parse_tolerance
from espdl_hil.errors import ConfigError
from espdl_hil.model import StreamingModel, load_models

if TYPE_CHECKING:
    import pytest

    from espdl_hil.plugin.options import HilOptions


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


def select_cases(options: HilOptions) -> list[Case]:
    """Load the model files and cross them with targets, widths and chunk sizes.

    Args:
        options: The command line.

    Returns:
        The cases, grouped by target, in the order of the model files.

    Raises:
        ConfigError: no model file was found, one does not load, or a selection matches nothing.
    """
    if not options.model_paths:
        raise ConfigError(
            "no models to test: there is no ./models folder",
            hint="name a model file or a folder of them with --hil-models PATH",
        )
    models = load_models(options.model_paths)
    unknown = [name for name in options.models if name not in models]
    if unknown:
        raise ConfigError(
            f"--hil-model {unknown[0]}: no such model",
            hint=f"the models found are: {', '.join(sorted(models))}",
        )
    for model in models.values():
        try:
            parse_tolerance(str(model.tolerance))
        except ConfigError as error:
            raise ConfigError(
                f"{model.source}: model {model.name!r}: {error.message}", hint=error.hint
            ) from None
    cases = [
        Case(target, model, bits, chunk_frames)
        for target in options.targets
        for model in models.values()
        if not options.models or model.name in options.models
        if not model.targets or target in model.targets
        for bits in model.bits
        if not options.bits or bits in options.bits
        for chunk_frames in model.chunk_frames
        if not options.chunks or chunk_frames in options.chunks
    ]
    if not cases:
        raise ConfigError(
            "the selection is empty: no model has that combination of target, --hil-bits and "
            "--hil-chunk",
            hint="; ".join(
                f"{model.name}: bits {list(model.bits)}, chunks {list(model.chunk_frames)}"
                for model in models.values()
            ),
        )
    return cases


def case_of(item: pytest.Item) -> Case | None:
    """Return the case that a collected test runs, or None for a test without ``hil``."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("hil_case")
