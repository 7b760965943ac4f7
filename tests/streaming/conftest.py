"""One exporter process for all tests of this room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers shared with the exporter process

from export_bench import Exporter


@pytest.fixture(scope="session")
def export():
    """Asks for exports; those of named networks are kept."""
    exporter = Exporter()
    known = {}

    def ask(request):
        if not isinstance(request.network, str):
            return exporter(request)
        key = repr(request)
        if key not in known:
            known[key] = exporter(request)
        return known[key]

    yield ask
    exporter.close()
