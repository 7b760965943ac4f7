"""What a row says of the float model. Knows numbers and JSON, not how they came."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from espdl_hil.compare import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Accuracy:
    """What an offline run keeps of the float model.

    Attributes:
        outcome: ``failed`` if an output keeps less than it must.
        sqnr_db: Of the output that is nearest to the least, or furthest below it; at most 100.
        changes_db: Of what changes in that output along time.
        min_sqnr_db: The least that this output must keep.
        outputs: SQNR in dB by graph output.
        error: What is lacking, where it is lost and what to try; empty if nothing is.
        metric: The model's own metric of its task: ``float``, ``offline`` and ``streamed``; None
            without one.
    """

    outcome: Outcome
    sqnr_db: float
    changes_db: float
    min_sqnr_db: float
    outputs: Mapping[str, float]
    error: str = ""
    metric: Mapping[str, float] | None = None

    @property
    def margin_db(self) -> float:
        """What the nearest output has above its least; the changes count where they do not do."""
        return min(self.sqnr_db - self.min_sqnr_db, self.changes_db)

    def to_json(self) -> dict[str, Any]:
        """The object that ``results.json`` keeps."""
        return {**asdict(self), "outcome": str(self.outcome)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Accuracy:
        """Read what ``to_json`` wrote."""
        names = ("sqnr_db", "changes_db", "min_sqnr_db", "outputs", "error")
        fields = {name: data[name] for name in names}
        return cls(Outcome(data["outcome"]), **fields, metric=data.get("metric"))


def worse_accuracy(one: Accuracy | None, other: Accuracy | None) -> Accuracy | None:
    """The worse of two; the first of equally bad ones."""
    return min(filter(None, [one, other]), key=lambda found: found.margin_db, default=None)
