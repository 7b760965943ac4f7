"""What is different in a worker of pytest-xdist: a mistake travels to the controller."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.config import create_terminal_writer

from espdl_hil.errors import BusyError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Generator

    from espdl_hil.errors import HarnessError

BOARDS_UNAVAILABLE = 75  # exit code, EX_TEMPFAIL of sysexits.h: boards were busy or broken
SEAT = "espdl_hil_seat"  # of a worker, in its input
_MISTAKE = "espdl_hil_mistake"
_UNAVAILABLE = "espdl_hil_boards_unavailable"
_unavailable_key: pytest.StashKey[bool] = pytest.StashKey()
_seats_key: pytest.StashKey[dict[str, int]] = pytest.StashKey()  # by name of the worker


def worker_name(config: pytest.Config) -> str:
    """Return ``gw0`` in a worker, nothing elsewhere."""
    return str(_input(config).get("workerid", ""))


def seat_of(config: pytest.Config) -> int:
    """Return which of the workers this is, from 0; one that replaces another has its seat."""
    return int(_input(config).get(SEAT, 0))


def worker_count(config: pytest.Config) -> int:
    """Return how many processes run tests side by side."""
    return int(_input(config).get("workercount", 1))


def _input(config: pytest.Config) -> dict[str, Any]:
    return getattr(config, "workerinput", {})


def command_of(config: pytest.Config) -> str:
    """Return the command line that the user gave."""
    return shlex.join(["pytest", *config.invocation_params.args])


def refuse(config: pytest.Config, error: HarnessError) -> None:
    """End the session: the user must act first.

    A worker cannot, it would count as crashed. It takes its tests, runs none, and tells its
    controller at the end.

    Raises:
        pytest.UsageError: outside of a worker.
    """
    is_unavailable = isinstance(error, BusyError | DeviceError)
    if not worker_name(config):
        config.stash[_unavailable_key] = is_unavailable
        raise pytest.UsageError(str(error)) from None
    _output(config)[_MISTAKE] = str(error)
    _output(config)[_UNAVAILABLE] = is_unavailable


def has_refused(config: pytest.Config) -> bool:
    """Return whether this is a worker that has found a mistake."""
    return _MISTAKE in _output(config)


def _output(config_or_node: Any) -> dict[str, Any]:
    return getattr(config_or_node, "workeroutput", {})


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, in the controller
def pytest_configure_node(node: Any) -> None:
    """Give a worker a seat: its own, or that of one that has crashed."""
    seats = node.config.stash.setdefault(_seats_key, {})
    node.workerinput[SEAT] = next(n for n in range(len(seats) + 1) if n not in seats.values())
    seats[node.gateway.id] = node.workerinput[SEAT]


def workers_of(config: pytest.Config) -> tuple[str, ...]:
    """Return the names of the workers that have a seat, in the controller; none elsewhere."""
    seats = config.stash.get(_seats_key, {})
    return tuple(seats)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, in the controller
def pytest_testnodedown(node: Any) -> None:
    """Say what the first worker has refused to work for, and end the session.

    Raises:
        pytest.UsageError: it has.
    """
    node.config.stash.get(_seats_key, {}).pop(node.gateway.id, None)
    if mistake := _output(node).get(_MISTAKE):
        node.config.stash[_unavailable_key] = _output(node).get(_UNAVAILABLE, False)
        raise pytest.UsageError(mistake)


def _start_worker_a_board(config: pytest.Config) -> None:
    """Do as ``-n`` would, before pytest-xdist looks at it."""
    boards, option = config.getoption("--hil-boards"), config.option
    if not boards or worker_name(config):
        return
    if not hasattr(option, "numprocesses"):
        raise pytest.UsageError("--hil-boards needs pytest-xdist\n  hint: pip install pytest-xdist")
    if option.numprocesses not in (None, boards):
        raise pytest.UsageError(
            f"--hil-boards {boards} and -n {option.numprocesses} both say how many workers there "
            "are\n  hint: leave one of them out"
        )
    option.numprocesses = boards


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Start a worker a board; give busy or silent boards an exit code of their own.

    Raises:
        pytest.UsageError: there is no pytest-xdist, or -n says something else.
    """
    _start_worker_a_board(config)
    try:
        return (yield)
    except pytest.UsageError as error:
        if not config.stash.get(_unavailable_key, False):
            raise
        writer = create_terminal_writer(config, sys.stderr)
        for message in error.args:
            writer.line(f"ERROR: {message}\n", red=True)
        return BOARDS_UNAVAILABLE
