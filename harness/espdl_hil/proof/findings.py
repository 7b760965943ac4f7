"""What puts a row in doubt whatever its outcome: said by device and model, not by its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.streaming import Severity
from espdl_hil.targets import KNOWN_ESPDL_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from espdl_hil.device.tensors import StepResult
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.chip_made import ChipMade
    from espdl_hil.streaming import Finding


def arithmetic_findings(espdl_version: str) -> tuple[str, ...]:
    """Say whether the kernels of a device are those that the interpreter computes.

    Args:
        espdl_version: As the device reports it; a simulated one says so behind it.

    >>> arithmetic_findings("3.3.9 (simulated)")
    ()
    >>> arithmetic_findings("3.4.0")
    ('arithmetic unknown: ESP-DL 3.4.0; known: 3.3.9',)
    """
    version = espdl_version.partition(" ")[0]
    if version in KNOWN_ESPDL_VERSIONS:
        return ()
    reported = f"ESP-DL {espdl_version}" if version else "the device reports no version of ESP-DL"
    return (f"arithmetic unknown: {reported}; known: {', '.join(KNOWN_ESPDL_VERSIONS)}",)


def chip_findings(made: ChipMade | None, case: Case) -> tuple[str, ...]:
    """Say which elements of a stream the chip itself makes differ from the offline run."""
    if made is None:
        return ()
    accepted = case.model.chip_rounding == "accept"
    return (f"{made}{', accepted' if accepted else ''}; what avoids it: {made.edit}",)


def model_findings(lint: Iterable[Finding]) -> tuple[str, ...]:
    """Say what the stimulus does not show, and what is to be known of the first frames.

    Args:
        lint: Of the streaming file; notes of what is as it should be are left out.
    """
    return tuple(
        f"{finding.rule} {finding.message}"
        for finding in lint
        if finding.rule.startswith("S4") or finding.severity is Severity.WARNING
    )


def vector_unit_findings(steps: Sequence[StepResult]) -> tuple[str, ...]:
    """Say in which steps other code had changed modes of the vector unit."""
    found = [(number, step.vector_unit) for number, step in enumerate(steps)]
    texts: dict[tuple[str, bool], list[int]] = {}
    for number, unit in found:
        if unit is not None:
            texts.setdefault((str(unit), unit.late), []).append(number)
    return tuple(_vector_unit_text(*key, numbers) for key, numbers in texts.items())


def _vector_unit_text(what: str, late: bool, numbers: Iterable[int]) -> str:
    chunks = list(numbers)
    first = f"chunk {chunks[0]}" + (f" and {len(chunks) - 1} more" if chunks[1:] else "")
    if late:
        return f"vector unit: {what} while {first} ran; their values may be wrong"
    return f"vector unit: {what} before {first}; the firmware put it right"
