"""What the exporter's log lines mean. Knows its wording, runs nothing.

The exporter logs ``ERROR`` where it should raise and goes on, and logs ``ERROR`` where
nothing is wrong. Each line that it is known to write has one row in ``RULES``; an ``ERROR``
that has none is a failure, because silence about it would be a guess.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Meaning(Enum):
    """What a line says about the artifact."""

    HARMLESS = "harmless"  # a false alarm: the artifact is right
    DOUBTFUL = "doubtful"  # may be wrong: the streaming lint judges the file itself
    FATAL = "fatal"  # the artifact is wrong


@dataclass(frozen=True)
class LogLine:
    """One log line, classified.

    Attributes:
        rule: Id of the row in ``RULES``; ``Q000`` when there is none.
        meaning: What the line says about the artifact.
        level: ``ERROR`` or ``WARNING``, as the exporter logged it.
        stage: Stage of the worker in which it was logged.
        node: The operator or tensor that the line names; empty when it names none.
        text: The line, without colour and time.
    """

    rule: str
    meaning: Meaning
    level: str
    stage: str
    node: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return the line as plain data."""
        return {**asdict(self), "meaning": self.meaning.value}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> LogLine:
        """Return the line that ``to_json`` gave."""
        return cls(**{**data, "meaning": Meaning(data["meaning"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class LogRule:
    """A line that the exporter is known to write.

    Attributes:
        id: Stable; ``Q1xx`` its own streaming conversion, ``Q2xx`` layout, weights and
            exponents, ``Q3xx`` quantization.
        meaning: What the line says about the artifact.
        title: A few words.
        pattern: Found in the line; a group ``node`` names the operator or tensor.
    """

    id: str
    meaning: Meaning
    title: str
    pattern: re.Pattern[str]


UNKNOWN = "Q000"
_OK, _DOUBTFUL, _FATAL = Meaning.HARMLESS, Meaning.DOUBTFUL, Meaning.FATAL

_TABLE = (  # NODE stands for the name of an operator or tensor
    (
        "Q101",
        _OK,
        "a Transpose needs no cache",
        r"Operation NODE of type Transpose is not supported for Auto",
    ),
    (
        "Q102",
        _DOUBTFUL,
        "operator unknown to the streaming conversion",
        r"Operation NODE of type \w+ is not supported for Auto",
    ),
    (
        "Q103",
        _DOUBTFUL,
        "operator over the frame axis",
        r"Operation NODE of type \w+ operates along the frame axis",
    ),
    ("Q104", _DOUBTFUL, "no cache inserted", r"Failed to insert streaming node for op NODE due to"),
    ("Q105", _DOUBTFUL, "padding stripped", r"\] is not supported in streaming node"),
    ("Q106", _DOUBTFUL, "auto_pad", r"Auto padding '\w+' is not supported in streaming node"),
    (
        "Q107",
        _DOUBTFUL,
        "padding of unknown rank",
        r"Unsupported padding length \d+ in streaming node '(?P<node>[^']+)'",
    ),
    ("Q108", _FATAL, "table names no tensor", r"Variable NODE not found in graph"),
    ("Q109", _FATAL, "no such input", r"Input variable NODE not found in graph"),
    ("Q201", _FATAL, "layout unknown", r"Can not reset \w+:NODE layout"),
    ("Q202", _FATAL, "layout inconsistent", r"^NODE permute do not match shape"),
    ("Q203", _FATAL, "Resize of this rank", r"Reize: do not support shape"),
    ("Q204", _FATAL, "filter of this rank", r"Conv filter don't support \d+D tensor"),
    ("Q205", _FATAL, "shape unknown", r"^input shape is None"),
    (
        "Q206",
        _DOUBTFUL,
        "output finer than the accumulator",
        r"calculation result of the NODE\(type: \w+\) operator will",
    ),
    ("Q207", _OK, "layout not recorded", r"^NODE does not bind perm parameter"),
    ("Q208", _DOUBTFUL, "no exponent", r"^NODE does not bind exponents parameter"),
    (
        "Q301",
        _FATAL,
        "batch norm left over",
        r"PPQ can not merge operation \S+ and (?P<node>[^\s,]+)",
    ),
    (
        "Q302",
        _OK,
        "batch norm alone",
        r"Isolated BatchNormalization\((?P<node>[^)]+)\) was detected",
    ),
    ("Q303", _DOUBTFUL, "range next to nothing", r"^Numeric instability detected"),
    ("Q304", _DOUBTFUL, "tensor not quantized", r"Unexpected quantization state of variable NODE"),
    (
        "Q305",
        _OK,
        "optional input missing",
        r"Unexpected input value of operation NODE, recieving \"None\"",
    ),
    ("Q306", _FATAL, "no such target", r"will return TargetPlatform\.FP32"),
)
RULES = tuple(  # the first that matches counts
    LogRule(id_, meaning, title, re.compile(pattern.replace("NODE", r"(?P<node>\S+)")))
    for id_, meaning, title, pattern in _TABLE
)

# [ERROR][ESPDL][2026-01-31 12:00:00]:  message, with colours around the header
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"\[(?P<level>ERROR|WARNING)\]\[\w+\]\[[\d :-]+\]:\s*(?P<text>.*)")


def classify(lines: Iterable[str], stage: str) -> list[LogLine]:
    """Read the exporter's log.

    Args:
        lines: The log as written, colours included.
        stage: Stage of the worker in which the lines were written.

    Returns:
        One for each ``ERROR`` and ``WARNING`` line; each once, in order. An unknown
        ``ERROR`` is fatal, an unknown ``WARNING`` is doubtful.

    >>> line = "[ERROR][ESPDL][2026-01-31 12:00:00]: y permute do not match shape"
    >>> [(line.rule, line.node) for line in classify([line], "export")]
    [('Q202', 'y')]
    """
    found: dict[LogLine, None] = {}
    for line in lines:
        match = _LINE.search(_COLOUR.sub("", line))
        if match:
            found[_classify_text(match["text"].strip(), match["level"], stage)] = None
    return list(found)


def _classify_text(text: str, level: str, stage: str) -> LogLine:
    for rule in RULES:
        match = rule.pattern.search(text)
        if match:
            node = match.groupdict().get("node") or ""
            return LogLine(rule.id, rule.meaning, level, stage, node, text)
    meaning = Meaning.FATAL if level == "ERROR" else Meaning.DOUBTFUL
    return LogLine(UNKNOWN, meaning, level, stage, "", text)
