"""Whether a quantized model does what the float one does, as well as its width can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.compare import NotComparableError, Outcome
from espdl_hil.proof.ladder import level
from espdl_hil.report import Accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.compare import Tensors
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.ladder import Loss


MIN_CHANGES_DB = 0.0  # below, an output's errors are larger than all that happens in it


@dataclass(frozen=True)
class Kept:
    """What is left of the float model in an offline run; true if it is enough.

    Attributes:
        id: The row's.
        sqnr_db: By graph output, at most 100.
        changes_db: Likewise, of what changes along time alone.
        min_sqnr_db: The least that each must have.
        losses: Where most is lost, by graph output.
        metric: What the model's own metric says of each run; None without one.
    """

    id: str
    sqnr_db: Mapping[str, float]
    changes_db: Mapping[str, float]
    min_sqnr_db: Mapping[str, float]
    losses: Mapping[str, Loss]
    metric: Mapping[str, float] | None = None

    def __bool__(self) -> bool:
        return not self.lacking

    def __repr__(self) -> str:
        kept = ", ".join(f"{name} {value:.1f} dB" for name, value in self.sqnr_db.items())
        return f"<accuracy of {self.id}: {kept}>"

    @property
    def lacking(self) -> list[str]:
        """Outputs that keep too little."""
        return [name for name in self.sqnr_db if self._margin_db(name) < 0]

    def _margin_db(self, name: str) -> float:
        """What an output has above its limits; a least below zero is one of the changes, too."""
        least = self.min_sqnr_db[name]
        return min(self.sqnr_db[name] - least, self.changes_db[name] - min(MIN_CHANGES_DB, least))

    def explain(self) -> list[str]:
        """Say what is lacking, where it is lost and what to try, a line each."""
        lines = []
        for name in self.lacking:
            least = self.min_sqnr_db[name]
            text = f"output {name!r} keeps {self.sqnr_db[name]:.1f} dB of the float model, "
            text += (
                f"at least {least:g} dB are asked for"
                if self.sqnr_db[name] < least
                else "but nearly all of that is constant: of what changes along time it keeps "
                f"{self.changes_db[name]:.1f} dB"
            )
            lines.append(f"{self.id}: accuracy: {text}")
            if (loss := self.losses.get(name)) is not None:
                lines += [f"most is lost in {loss}", f"try: {loss.advice}"]
        return lines

    @property
    def check(self) -> Accuracy:
        """The numbers that a row keeps, of the output that is nearest to its least."""
        nearest = min(self.sqnr_db, key=self._margin_db)
        return Accuracy(
            outcome=Outcome.PASSED if self else Outcome.FAILED,
            sqnr_db=self.sqnr_db[nearest],
            changes_db=self.changes_db[nearest],
            min_sqnr_db=self.min_sqnr_db[nearest],
            outputs=dict(self.sqnr_db),
            error="; ".join(self.explain()).replace(f"{self.id}: accuracy: ", ""),
            metric=self.metric,
        )


def measure(expected: Expected, offline: Tensors) -> Kept:
    """Set an offline run's outputs, in the file's layout, beside the float model.

    Raises:
        NotComparableError: an output is not finite.
    """
    case = expected.case
    found = expected.fidelities(offline)
    endless = ", ".join(name for name, fidelity in found.items() if not fidelity.finite)
    if endless:
        raise NotComparableError(f"{case.id}: no accuracy can be given: {endless} is not finite")
    return Kept(
        id=case.id,
        sqnr_db={name: level(of.sqnr_db, of) for name, of in found.items()},
        changes_db={name: level(of.changes_db, of) for name, of in found.items()},
        min_sqnr_db={name: case.model.least_sqnr_db(name, case.bits) for name in found},
        losses=expected.ladder.losses,
    )
