"""Recipe in, artifacts out: one calibration, an offline file and its streaming files.

Import from here; the modules inside are free to move. torch and esp-ppq are imported in a
process of their own, never in this one.
"""

from harness.quantize.artifacts import Artifacts
from harness.quantize.log_rules import Finding, Verdict
from harness.quantize.prepare import Progress, prepare
from harness.quantize.recipe import Recipe
from harness.quantize.store import Store

__all__ = ["Artifacts", "Finding", "Progress", "Recipe", "Store", "Verdict", "prepare"]
