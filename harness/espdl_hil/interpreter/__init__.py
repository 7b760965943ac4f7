"""Bit-exact integer execution of ESP-DL graphs in NumPy: the expected value of every comparison."""

from espdl_hil.interpreter.execution import Execution, load
from espdl_hil.operators.saturation import LaneLog

__all__ = ["Execution", "LaneLog", "load"]
