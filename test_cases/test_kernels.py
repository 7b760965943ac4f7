"""What one runs first on a new board, chip revision or ESP-DL version: ``pytest -m kernels``.

Vectors recorded from ESP-DL's own kernels run on the device, and every node's output is compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from espdl_hil.device.dut import Dut

pytestmark = pytest.mark.kernels

TESTS = Path(__file__).parents[1] / "tests"
FOLDERS = [
    path for name in ("golden", "golden_chip", "unknowns") if (path := TESTS / name).is_dir()
]


def test_kernels_give_what_was_recorded(hil_dut: Dut) -> None:
    """Each operator at each width: exact, within its bound, or not."""
    from espdl_hil.proof.conformance import render, run_vectors
    from espdl_hil.proof.vectors import find_vectors, read_vector

    paths = find_vectors(FOLDERS, hil_dut.info.target)
    verdicts = run_vectors(hil_dut, map(read_vector, paths))
    print(render(verdicts))
    assert [str(verdict) for verdict in verdicts if verdict.wrong] == []
