"""What tests of several rooms share."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # helpers that rooms and campaigns share

# Other tests have the processors at the same time: how long an example takes says nothing.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_CHIP = Path(__file__).parent / "golden_chip"


def read_case(path):
    """(Bytes of the model, index, tensors by path)."""
    with np.load(path) as stored:
        index = json.loads(stored["index"].tobytes())
        tensors = {path: stored[key] for key, path in index["tensors"].items()}
    return tensors.pop("model").tobytes(), index, tensors


@pytest.fixture(scope="session")
def golden():
    """Function from a case's name to (bytes of the model, index, tensors by path)."""
    return lambda name: read_case(GOLDEN / f"{name}.npz")


@pytest.fixture(scope="session")
def golden_chip():
    """Like `golden`, for the vectors of the chips' own kernels."""
    return lambda name: read_case(GOLDEN_CHIP / f"{name}.npz")


@pytest.fixture(scope="session")
def golden_names():
    return sorted(path.name.removesuffix(".npz") for path in GOLDEN.glob("*.npz"))


@pytest.fixture(scope="session", autouse=True)
def scheduler():
    """One quantize process for all tests of a process: it imports for seconds.

    Imports are seen where no test of this process quantizes, so they wait for the first.
    """
    from espdl_hil.quantize import one_scheduler

    with one_scheduler() as shared:
        yield shared


@pytest.fixture
def rng():
    return np.random.default_rng(7)
