"""Attacks in processes of their own: outcome, seconds and memory of each. Knows no attack."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from collections import Counter
from dataclasses import dataclass

from espdl_hil.errors import HarnessError

MAX_SECONDS = 20
MAX_ADDRESSES = 2**34  # a bound that fails is reported by its peak; this one spares the machine


@dataclass(frozen=True)
class Measured:
    """One attack.

    Attributes:
        outcome: What the case returned, the documented error's name, or what went wrong.
        sound: It returned or raised a documented error.
        seconds: Until its process ended.
        peak_bytes: Most resident memory of its process.
    """

    outcome: str
    sound: bool
    seconds: float
    peak_bytes: int


def measure(case):
    """Run *case*, which returns a word, in a fork of this process."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, _attempt(case).encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        said = f"!ended by signal {os.WTERMSIG(status)} after {seconds:.1f} s"
    return Measured(said.lstrip("!"), not said.startswith("!"), seconds, usage.ru_maxrss * 1024)


def _attempt(case):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
    try:
        return case()
    except HarnessError as error:
        return type(error).__name__
    except BaseException as error:  # noqa: BLE001 - this is what an attack is after
        return f"!{error!r}"


def campaign(cases):
    """Run cases and judge them.

    Args:
        cases: (name, case, bound in bytes) each.

    Returns:
        Plain values for JSON: ``outcomes`` by name, ``faults`` in words, ``slowest`` in seconds,
        ``peak`` in bytes beyond an empty case, ``nearest`` to its bound as a fraction.
    """
    gc.freeze()  # forks copy what their collector touches
    empty = measure(lambda: "").peak_bytes
    outcomes, faults, slowest, peak, nearest = Counter(), [], 0.0, 0, 0.0
    for name, case, bound in cases:
        found = measure(case)
        taken = found.peak_bytes - empty
        outcomes[found.outcome if found.sound else "wrong"] += 1
        slowest, peak = max(slowest, found.seconds), max(peak, taken)
        nearest = max(nearest, taken / bound)
        if not found.sound:
            faults.append(f"{name}: {found.outcome}")
        if taken > bound:
            faults.append(f"{name}: {found.outcome}, took {taken} bytes, {bound} are the most")
    return {
        "outcomes": dict(outcomes),
        "faults": faults,
        "slowest": slowest,
        "peak": peak,
        "nearest": nearest,
    }
