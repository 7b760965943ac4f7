"""Bit-exact integer execution of ESP-DL graphs in NumPy: the expected value of every comparison."""

from harness.interpreter.lane import LaneWarning
from harness.interpreter.session import Session, load

__all__ = ["LaneWarning", "Session", "load"]
