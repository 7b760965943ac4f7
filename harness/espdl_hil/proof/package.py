"""The models package of one device: which files lie in flash, and under which names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.espdl import write_package

if TYPE_CHECKING:
    from collections.abc import Iterable

    from espdl_hil.proof.case import Case
    from espdl_hil.quantize import Artifacts

# Half of the models partition, in firmware/partitions.csv. Flashing costs seconds a MiB; a
# model that does not fit is uploaded when its test runs.
PACKAGE_BYTES = 4 << 20


def offline_name(case: Case) -> str:
    """Name of the whole model in the package."""
    return f"{case.model.name}-int{case.bits}-offline"


def streaming_name(case: Case) -> str:
    """Name of the streaming model of one chunk size in the package."""
    return f"{case.model.name}-int{case.bits}-chunk{case.chunk_frames}"


def package_models(
    artifacts: Iterable[tuple[Case, Artifacts]], limit_bytes: int = PACKAGE_BYTES
) -> bytes:
    """Pack what fits of one target's files into a PDL3 package, in the order of the cases.

    *limit_bytes* are those of all files together: half of the partition.
    """
    entries: dict[str, bytes] = {}
    size = 0
    for case, files in artifacts:
        wanted = {
            offline_name(case): files.offline,
            streaming_name(case): files.streaming[case.chunk_frames],
        }
        for name, path in wanted.items():
            data = path.read_bytes()
            if name not in entries and size + len(data) <= limit_bytes:
                entries[name] = data
                size += len(data)
    return write_package(list(entries.items()))
