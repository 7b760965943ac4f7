"""Recipe in, artifacts out: one calibration, an offline file and its streaming files.

Import from here; the modules inside are free to move. torch and esp-ppq are imported in
processes of their own, never in this one.
"""

from espdl_hil.quantize.artifacts import Artifacts
from espdl_hil.quantize.foreign import NO_REFERENCE, NOT_JUDGED
from espdl_hil.quantize.log_rules import LogLine, Meaning
from espdl_hil.quantize.prepare import Progress, one_scheduler, prepare, result_of
from espdl_hil.quantize.recipe import Recipe
from espdl_hil.quantize.stimulus import generator
from espdl_hil.quantize.store import Store

__all__ = [
    "NOT_JUDGED",
    "NO_REFERENCE",
    "Artifacts",
    "LogLine",
    "Meaning",
    "Progress",
    "Recipe",
    "Store",
    "generator",
    "one_scheduler",
    "prepare",
    "result_of",
]
