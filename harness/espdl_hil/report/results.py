"""The results of a run. ``docs/results.md`` is the schema of their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import ConfigError
from espdl_hil.report.check import JsonObject, read
from espdl_hil.report.provenance import Commit
from espdl_hil.report.row import Device, Row
from espdl_hil.report.schema import SCHEMA, ResultsError, validate_results

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Incident:
    """One attempt to bring a device back.

    Attributes:
        target: Which.
        reason: What had happened.
        action: ``soft reset``, ``EN reset``, ``reflash``, …
        outcome: ``recovered``, or why it did not help.
        seconds: How long the attempt took.
    """

    target: str
    reason: str
    action: str
    outcome: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}; {self.action}: {self.outcome} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Written:
    """What a board was sent to keep.

    Attributes:
        target: Of the board.
        port: Where it is.
        flashed_bytes: Written to its flash, before compression; what was there already is not.
        uploaded_bytes: Of models, sent into its memory.
    """

    target: str
    port: str
    flashed_bytes: int
    uploaded_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.target} at {self.port}: {self.flashed_bytes:,} bytes flashed, "
            f"{self.uploaded_bytes:,} bytes of models uploaded"
        )


@dataclass(frozen=True)
class Results:
    """All that a run found.

    Attributes:
        date: When it began, ISO 8601 in UTC.
        duration_s: How long it took.
        command: The command line.
        commit: Of the repository that holds the models; None without.
        environment: Component to version, for the record.
        devices: Devices that answered, in order of appearance; each boot once.
        incidents: Recoveries, in order.
        written: What each board was sent to keep; none for devices of this run alone.
        rows: In the order of their first checks.
    """

    date: str
    duration_s: float = 0.0
    command: str = ""
    commit: Commit | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    incidents: tuple[Incident, ...] = ()
    written: tuple[Written, ...] = ()
    rows: tuple[Row, ...] = ()

    def merge(self, *others: Results) -> Results:
        """Unite with what other processes of the same run found.

        Args:
            *others: Their results; a row that several speak of keeps the worst outcome, and
                the worst of each check.
        """
        parts = (self, *others)
        rows: dict[str, Row] = {}
        for row in (row for part in parts for row in part.rows):
            rows[row.id] = rows[row.id].merged(row) if row.id in rows else row
        return replace(
            self,
            date=min((part.date for part in parts), key=datetime.fromisoformat),
            duration_s=max(part.duration_s for part in parts),
            environment={name: v for part in parts for name, v in part.environment.items()},
            devices=tuple(dict.fromkeys(device for part in parts for device in part.devices)),
            incidents=tuple(incident for part in parts for incident in part.incidents),
            written=tuple(written for part in parts for written in part.written),
            rows=tuple(rows.values()),
        )

    def to_json(self) -> JsonObject:
        """The object that ``results.json`` holds."""
        return {
            "schema": SCHEMA,
            "date": self.date,
            "duration_s": round(self.duration_s, 3),
            "command": self.command,
            "commit": self.commit and asdict(self.commit),
            "environment": dict(self.environment),
            "devices": [asdict(device) for device in self.devices],
            "incidents": [asdict(incident) for incident in self.incidents],
            "written": [asdict(written) for written in self.written],
            "rows": [row.to_json() for row in self.rows],
        }

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a ``results.json``.

        Raises:
            ConfigError: it cannot be read, or is none.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, RecursionError):
            reason = "it is no JSON"
        except ResultsError as error:
            reason = error.message
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            hint="take the results.json of a run, from its report's folder",
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        """Read what ``to_json`` wrote.

        Raises:
            ResultsError: *data* breaks the schema.
        """
        validate_results(data)
        plain = ("date", "duration_s", "command", "environment")
        return cls(
            **{name: data[name] for name in plain},
            commit=data["commit"] and read(Commit, data["commit"]),
            devices=tuple(read(Device, device) for device in data["devices"]),
            incidents=tuple(read(Incident, incident) for incident in data["incidents"]),
            written=tuple(read(Written, written) for written in data.get("written", ())),
            rows=tuple(Row.from_json(row) for row in data["rows"]),
        )
