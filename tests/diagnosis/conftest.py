from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def subjects():
    """Small streaming artifacts with their stimulus, by ``name.target.bits``."""
    sys.path.insert(0, str(BENCH))
    try:
        from campaign.subjects import golden_subjects

        found = list(golden_subjects())
    finally:
        sys.path.remove(str(BENCH))
    return {f"{s.name}.{s.target}.int{s.bits}": s for s in found}
