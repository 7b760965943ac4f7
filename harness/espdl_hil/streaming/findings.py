"""What streaming findings and refusals are made of. Knows no rule by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING

from espdl_hil.errors import StreamingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Severity(Enum):
    """How a finding is to be taken."""

    ERROR = "error"  # the stream differs from the offline model, or does not load
    WARNING = "warning"  # it differs in frames that are predicted, or on other runtimes
    NOTE = "note"  # worth knowing; nothing differs


@dataclass(frozen=True)
class Finding:
    """One rule, broken at one place.

    Attributes:
        rule: Id of the rule, such as ``S202``.
        severity: How it is to be taken.
        node: Name of the node at fault; empty for the whole file.
        message: What is wrong here, with figures.
        frames_affected: Which frames differ, in words; empty when none do.
        edit: What to change.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    frames_affected: str
    edit: str

    def to_json(self) -> dict[str, str]:
        """Write the finding as plain data; ``from_json`` reads it back equal."""
        return {**asdict(self), "severity": self.severity.value}

    @staticmethod
    def from_json(data: Mapping[str, str]) -> Finding:
        """Read what ``to_json`` wrote."""
        return Finding(**{**data, "severity": Severity(data["severity"])})  # type: ignore[arg-type]

    def __str__(self) -> str:
        where = f" {self.node}" if self.node else ""
        affected = f" [{self.frames_affected}]" if self.frames_affected else ""
        return f"{self.rule} {self.severity.value}{where}: {self.message}{affected}"


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong with a streaming model.

    Attributes:
        id: Stable; ``S1xx`` the model cannot stream, ``S2xx`` the export is wrong, ``S3xx``
            what to expect.
        title: A few words.
        explanation: Why it breaks streaming.
        edit: What the model's author should change.
        severity: See ``Severity``.
    """

    id: str
    title: str
    explanation: str
    edit: str
    severity: Severity = Severity.ERROR


def refuse(rule: Rule, node: str, message: str) -> StreamingError:
    """Make the error for a model that cannot stream as written; its hint is the rule's edit.

    Args:
        rule: What is broken.
        node: Name of the node at fault.
        message: Why, with the figures of this node.
    """
    return StreamingError(f"{rule.title}: {message}", rule=rule.id, node=node, hint=rule.edit)


def find(rule: Rule, node: str, message: str, frames_affected: str = "") -> Finding:
    """Make a finding of a rule.

    Args:
        rule: What is broken.
        node: Name of the node at fault; empty for the whole file.
        message: Why, with the figures of this node.
        frames_affected: Which frames differ, in words.
    """
    text = f"{rule.title}: {message}"
    return Finding(rule.id, rule.severity, node, text, frames_affected, rule.edit)


def require_sound(findings: Iterable[Finding]) -> None:
    """Raise the first error among findings.

    Raises:
        StreamingError: with the finding's rule, node and edit.
    """
    for finding in findings:
        if finding.severity is Severity.ERROR:
            affected = f" ({finding.frames_affected})" if finding.frames_affected else ""
            raise StreamingError(
                f"{finding.message}{affected}",
                rule=finding.rule,
                node=finding.node,
                hint=finding.edit,
            )
