"""What tests of several rooms share."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers that rooms and campaigns share

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """Function from a case's name to (bytes of the model, index, tensors by path)."""

    def read(name):
        with np.load(GOLDEN / f"{name}.npz") as stored:
            index = json.loads(stored["index"].tobytes())
            tensors = {path: stored[key] for key, path in index["tensors"].items()}
        return tensors.pop("model").tobytes(), index, tensors

    return read


@pytest.fixture(scope="session")
def golden_names():
    return sorted(path.name.removesuffix(".npz") for path in GOLDEN.glob("*.npz"))


@pytest.fixture
def rng():
    return np.random.default_rng(7)
