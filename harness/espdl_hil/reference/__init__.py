"""The exporter's own execution beside the interpreter's, node by node on the same inputs."""

from espdl_hil.reference.judge import Judged, judge
from espdl_hil.reference.record import RECORD, ReferenceRecord, read_record, write_record
from espdl_hil.reference.steps import ROUNDS_FLOATS

__all__ = [
    "RECORD",
    "ROUNDS_FLOATS",
    "Judged",
    "ReferenceRecord",
    "judge",
    "read_record",
    "write_record",
]
