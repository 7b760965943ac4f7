"""Bit-exact integer execution of ESP-DL graphs in NumPy: the expected value of every comparison."""

from espdl_hil.interpreter.session import Session, load
from espdl_hil.operators.s3_accumulator import LaneWarning

__all__ = ["LaneWarning", "Session", "load"]
