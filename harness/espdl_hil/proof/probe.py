"""A look into a device for the diagnosis: the stream again, with its tensors recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil.diagnosis.mismatch import Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.compare import Tensors
    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult

BATCH = 32  # tensors watched in one run; the least that a device offers


class DeviceProbe:
    """Runs a loaded streaming model again from a reset; fits ``diagnosis.mismatch.Probe``.

    Every look is at a model that has run before, so that a reset that does nothing shows.
    """

    def __init__(self, model: Model, chunks: Sequence[Tensors]) -> None:
        self._model = model
        self._chunks = chunks
        self._ran = False

    def digests(self, names: Sequence[str], chunks: int) -> list[Look]:
        """CRC-32 of the bytes of tensors, over the first *chunks* chunks."""
        return self._look(names, chunks, digests=True)

    def values(self, names: Sequence[str], chunks: int) -> list[Look]:
        """The tensors themselves."""
        return self._look(names, chunks, digests=False)

    def _look(self, names: Sequence[str], chunks: int, *, digests: bool) -> list[Look]:
        if not self._ran:
            self._model.stream(self._chunks, reset=True)
            self._ran = True
        described = self._model.describe()
        shown = {spec.name for spec in (*described.inputs, *described.outputs)}
        wanted = [name for name in names if name in shown | set(self._model.intermediates())]
        seen: list[dict[str, Any]] = [{} for _ in range(chunks)]
        remarks: dict[int, str] = {}
        for start in range(0, max(len(wanted), 1), BATCH):
            self._model.watch(wanted[start : start + BATCH], digests=digests)
            steps = self._model.stream(self._chunks[:chunks], reset=True)
            remarks |= canary_remarks(steps)
            for number, step in enumerate(steps):
                seen[number] |= step.watched
        self._model.watch(())
        return [Look(found, remarks.get(number, "")) for number, found in enumerate(seen)]


def canary_remarks(steps: Sequence[StepResult]) -> dict[int, str]:
    """What the device's canary says, by step, of those in which output memory was not written."""
    remarks = {}
    for number, step in enumerate(steps):
        if (left := step.unwritten) is not None:
            what = f"{left.nbytes} bytes of output {left.output} from byte {left.offset}"
            others = f", and {left.tensors - 1} other outputs" if left.tensors > 1 else ""
            remarks[number] = f"{what} were not written{others}"
        elif step.suspect:
            remarks[number] = "an output under 16 bytes still holds the canary"
    return remarks
