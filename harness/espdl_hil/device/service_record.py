"""What a board has gone through, across runs: recoveries, out of service or not, who flashed it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from espdl_hil.device.claim import guarded, lock_directory
from espdl_hil.errors import printable

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.device.bench import Quarantine

MAX_BYTES: Final = 1 << 16  # of a file that another user wrote
KEPT: Final = 200  # recoveries
HOUR_S: Final = 3600.0


@dataclass(frozen=True)
class ServiceRecord:
    """One board's record.

    Attributes:
        recoveries: When it had to be brought back, seconds since 1970, oldest first.
        out: Why it is out of service; empty while it is not.
        out_since: When that was said, seconds since 1970.
        is_ours: Its flash was given to this harness.
    """

    recoveries: tuple[float, ...] = ()
    out: str = ""
    out_since: float = 0.0
    is_ours: bool = False

    def count(self, hours: float) -> int:
        """How often it had to be brought back within the last *hours*."""
        since = time.time() - hours * HOUR_S
        return sum(moment > since for moment in self.recoveries)


def read_record(identity: str) -> ServiceRecord:
    """The record of a board; empty without one, and where a file is no record."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with _path(identity).open("rb") as file:
            said = json.loads(file.read(MAX_BYTES))
        return ServiceRecord(
            recoveries=tuple(map(float, said["recoveries"])),
            out=printable(str(said["out"])),
            out_since=float(said["out_since"]),
            is_ours=bool(said["is_ours"]),
        )
    return ServiceRecord()


def note_recovery(identity: str, reason: str, rule: Quarantine, *, failed: bool) -> str:
    """Count a recovery, and take the board out of service if there are too many.

    Args:
        identity: Of the board; empty for one that has none, which keeps no record.
        reason: What had happened.
        rule: How many are too many.
        failed: It could not be brought back.

    Returns:
        Why the board is out of service now; empty if it is not.
    """
    if not identity:
        return ""
    with guarded(lock_directory()):
        record = read_record(identity)
        recoveries = (*record.recoveries, time.time())[-KEPT:]
        record = replace(record, recoveries=recoveries)
        count = record.count(rule.hours)
        if failed:
            record = replace(record, out=f"it did not come back: {reason}", out_since=time.time())
        elif count >= rule.recoveries:
            out = f"{count} recoveries within {rule.hours:g} h, the last: {reason}"
            record = replace(record, out=out, out_since=time.time())
        _write(identity, record)
    return record.out


def note_ours(identity: str) -> None:
    """Remember that a board's flash was given to this harness."""
    if identity:
        with guarded(lock_directory()):
            _write(identity, replace(read_record(identity), is_ours=True))


def clear(identity: str) -> str:
    """Take a board back into service, and forget its recoveries.

    Returns:
        Why it was out; empty if it was not.
    """
    with guarded(lock_directory()):
        record = read_record(identity)
        _write(identity, ServiceRecord(is_ours=record.is_ours))
    return record.out


def _path(identity: str) -> Path:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")[-40:]
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return lock_directory() / f"{readable}-{digest}.record"


def _write(identity: str, record: ServiceRecord) -> None:
    """Replace the file as a whole; on a full disk the old one stays."""
    path = _path(identity)
    fresh = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
        fresh.chmod(0o664)
        fresh.replace(path)
    with contextlib.suppress(OSError):
        fresh.unlink(missing_ok=True)
