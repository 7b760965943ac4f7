"""A look into a device for the diagnosis: the stream again, with its tensors recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil.diagnosis.mismatch import Look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.wire.messages import WatchMode

BATCH = 32  # tensors watched in one run; the least that a device offers


class DeviceProbe:
    """Runs a loaded streaming model again from a reset; fits ``diagnosis.mismatch.Probe``.

    Args:
        model: The model, with its state bound.
        chunks: Inputs of each step.
    """

    def __init__(self, model: Model, chunks: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        self._model = model
        self._chunks = chunks

    def digests(self, names: Sequence[str], chunks: int) -> list[Look]:
        """CRC-32 of the bytes of tensors, over the first *chunks* chunks."""
        from espdl_hil.wire.messages import WatchMode

        return self._look(names, chunks, WatchMode.DIGEST)

    def values(self, names: Sequence[str], chunks: int) -> list[Look]:
        """The tensors themselves."""
        from espdl_hil.wire.messages import WatchMode

        return self._look(names, chunks, WatchMode.VALUE)

    def _look(self, names: Sequence[str], chunks: int, mode: WatchMode) -> list[Look]:
        described = self._model.describe()
        shown = {spec.name for spec in (*described.inputs, *described.outputs)}
        wanted = [name for name in names if name in shown | set(self._model.intermediates())]
        seen: list[dict[str, Any]] = [{} for _ in range(chunks)]
        steps: list[StepResult] = []
        for start in range(0, max(len(wanted), 1), BATCH):
            self._model.watch(wanted[start : start + BATCH], mode)
            steps = self._model.stream(self._chunks[:chunks], reset=True)
            for number, step in enumerate(steps):
                seen[number] |= step.watched
        self._model.watch(())
        return [
            Look(step.outputs, found, canary_remark(step))
            for step, found in zip(steps, seen, strict=True)
        ]


def canary_remark(step: StepResult) -> str:
    """What the device's canary says of a step that went wrong; empty if all was written."""
    if step.unwritten is not None:
        return str(step.unwritten)
    return "an output under 16 bytes still holds the canary" if step.suspect else ""
