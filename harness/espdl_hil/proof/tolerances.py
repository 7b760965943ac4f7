"""The ledger of tolerances: what was allowed, by whom, why, and how much of it was used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.compare import EXACT, Tolerance
from espdl_hil.report import Allowance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from espdl_hil.compare import Array, StreamVerdict
    from espdl_hil.reference import Judged

DECLARED, DERIVED, DEFAULT = "declared", "derived", "default"
OUTPUTS = "outputs"
PREDICTED = "what the chip is predicted to change"
LIBRARIES = "float outputs pass through the expf of two libraries"


def streaming_ledger(
    verdict: StreamVerdict, tolerance: Tolerance, accepted: str = ""
) -> tuple[Allowance, ...]:
    """What a stream may differ from its own offline run.

    Elements that the chip itself makes differ are *accepted*, in words, and equal in *verdict*.
    """
    outputs = _of_outputs("streaming", verdict, tolerance, "one file, one chip, the same integers")
    if not accepted:
        return (outputs,)
    why = "declared by the model: chip_rounding='accept'"
    return (outputs, Allowance("streaming", DECLARED, OUTPUTS, PREDICTED, accepted, why))


def interpreter_ledger(verdict: StreamVerdict, tolerance: Tolerance) -> tuple[Allowance, ...]:
    """What a device may differ from the interpreter."""
    if tolerance == EXACT:
        return (_of_outputs("interpreter", verdict, tolerance, "the same bytes, computed alike"),)
    why = "firmware is built with -ffast-math: float steps of a node may be reordered"
    return (Allowance("interpreter", DERIVED, OUTPUTS, str(tolerance), _used(verdict), why),)


def reference_ledger(
    verdict: StreamVerdict,
    tolerance: Tolerance,
    judged: Sequence[Judged],
    rooms: Mapping[str, Array],
) -> tuple[Allowance, ...]:
    """What an offline run may differ from the exporter's reference: node by node, then outputs.

    Nodes that are exact are left out.
    """
    return (
        *_of_nodes(judged),
        *_of_rooms(verdict, rooms),
        _of_outputs("reference", verdict, tolerance, "beside what the nodes are allowed"),
    )


def summary(ledger: Sequence[Allowance]) -> str:
    """A line for the row: the declared or default tolerance, and each bound that was used."""
    plain = [entry.allowed for entry in ledger if entry.kind != DERIVED]
    used = [
        f"{entry.used.partition(' ')[0]} of {entry.allowed} at {entry.where}"
        for entry in ledger
        if entry.kind == DERIVED and entry.used
    ]
    return "; ".join(dict.fromkeys([*plain, *used]))


def _of_outputs(check: str, verdict: StreamVerdict, tolerance: Tolerance, exact: str) -> Allowance:
    kind = DEFAULT if tolerance == EXACT else DECLARED
    reason = "declared by the model" if kind == DECLARED else exact
    if verdict.max_relative is not None and kind == DEFAULT:
        reason += f"; {LIBRARIES}: {tolerance.relative:g}"
    return Allowance(check, kind, OUTPUTS, str(tolerance), _used(verdict), reason)


def _of_nodes(judged: Sequence[Judged]) -> Iterator[Allowance]:
    for node in judged:
        if node.bound or node.excused:
            where = f"{node.operator} {node.node!r}"
            reason = f"{node.why}: {node.differing} of {node.elements} elements differ"
            used = node.size(node.used) if node.differing else ""
            yield Allowance("reference", DERIVED, where, node.size(node.bound), used, reason)


def _of_rooms(verdict: StreamVerdict, rooms: Mapping[str, Array]) -> Iterator[Allowance]:
    largest = {name: float(room.max(initial=0)) for name, room in rooms.items()}
    for name, room in largest.items():
        if room:
            unit = " relative" if rooms[name].dtype.kind == "f" else " LSB"
            yield Allowance(
                "reference",
                DERIVED,
                OUTPUTS if len(rooms) == 1 else f"output {name!r}",
                f"{room:.2g}{unit}",
                _used(verdict),
                "what the file's own nodes, each within its bound, make of the stimulus",
            )


def _used(verdict: StreamVerdict) -> str:
    if not verdict.differing:
        return ""
    if verdict.max_lsb:
        return f"{verdict.max_lsb} LSB"
    return f"{verdict.max_relative:.2g} relative" if verdict.max_relative else ""
