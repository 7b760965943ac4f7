"""From a failed verdict to its cause."""

from espdl_hil.diagnosis.cause import Cause, Diagnosis
from espdl_hil.diagnosis.search import diagnose

__all__ = ["Cause", "Diagnosis", "diagnose"]
