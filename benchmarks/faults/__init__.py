"""Faults for the diagnosis campaign: what to break, on which models, on which device."""

from faults.arithmetic import KINDS as ARITHMETIC
from faults.artifact import KINDS as ARTIFACT
from faults.course import KINDS as COURSE
from faults.memory import KINDS as MEMORY
from faults.plan import KINDS as PLAN

ALL_KINDS = (*ARTIFACT, *PLAN, *MEMORY, *COURSE, *ARITHMETIC)
