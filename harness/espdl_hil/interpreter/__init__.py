"""Bit-exact integer execution of ESP-DL graphs in NumPy: the expected value of every comparison."""

from espdl_hil.interpreter.execution import Execution, load
from espdl_hil.operators.s3_accumulator import LaneWarning

__all__ = ["Execution", "LaneWarning", "load"]
