"""Cases that the measure must judge: one sound, one refused, and three faults."""

import time

import measured

from espdl_hil.errors import ArtifactError


def sound():
    return "ran"


def refused():
    raise ArtifactError("no")


def greedy():
    assert bytearray(2**26).count(1) == 0
    return "ran"


def broken():
    return {}["key"]


def endless():
    time.sleep(60)


def warm_up():
    """There is nothing to load."""


def cases(_seed, _count):
    measured.MAX_SECONDS = 1
    for case in (sound, refused, greedy, broken, endless):
        yield case.__name__, case, 2**25
