"""Hooks with which a lab plugs itself in: implement any of them in a conftest.py or plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.hookspec(firstresult=True)
def pytest_espdl_hil_find_port(target: str) -> str | None:
    """Name the port of a board; asked for each target that ``--port`` does not name.

    Args:
        target: ESP-IDF target name, ``esp32s3``.

    Returns:
        Device path or pyserial URL; None leaves the search to others, and at last to the harness.
    """


@pytest.hookspec(firstresult=True)
def pytest_espdl_hil_power_cycle(target: str, port: str) -> bool | None:
    """Cut a board's power and give it back; asked when resetting the board did not help.

    Args:
        target: ESP-IDF target name.
        port: The board's port, as it was named or found.

    Returns:
        True when the board had no power for a moment and has it again; None or False if this
        board has no switch.
    """


@pytest.hookspec
def pytest_espdl_hil_row(row: Mapping[str, Any]) -> None:
    """Take a finished row, for instance to keep it in a database.

    Called once a row, after the last test and before the report is written; under pytest-xdist
    in the controller, with what all workers found.

    Args:
        row: An entry of ``rows`` as ``results.json`` has it, see ``docs/results.md``.
    """
