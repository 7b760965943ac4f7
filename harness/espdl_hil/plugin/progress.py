"""Where the progress of a run is shown: below pytest's own line, and never in what it captures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from _pytest.terminal import TerminalReporter

from espdl_hil.plugin.worker import worker_name
from espdl_hil.proof.watch import ProgressLine

if TYPE_CHECKING:
    import pytest


def make_watch(config: pytest.Config) -> ProgressLine:
    """Return what shows work that takes its time.

    A terminal that somebody else writes to meanwhile is left alone: with ``-s`` the tests and the
    device's log do, under pytest-xdist the controller, with pytest-sugar another reporter. ``-q``
    asks for silence.
    """
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")

    def column() -> int:
        writer = config.get_terminal_writer()
        writer.flush()
        return writer.width_of_current_line if writer.hasmarkup else 0

    return ProgressLine(
        around=capture.global_and_fixture_disabled if capture else contextlib.nullcontext,
        column=column,
        live=type(reporter) is TerminalReporter
        and not worker_name(config)
        and config.option.capture != "no"
        and config.option.verbose >= 0,
    )
