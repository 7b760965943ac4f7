"""What is different in a worker of pytest-xdist: a mistake travels to the controller."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from espdl_hil.errors import HarnessError

_MISTAKE = "espdl_hil_mistake"


def worker_name(config: pytest.Config) -> str:
    """Return ``gw0`` in a worker, nothing elsewhere."""
    return str(_input(config).get("workerid", ""))


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
    if not worker_name(config):
        raise pytest.UsageError(str(error)) from None
    _output(config)[_MISTAKE] = str(error)


def has_refused(config: pytest.Config) -> bool:
    """Return whether this is a worker that has found a mistake."""
    return _MISTAKE in _output(config)


def _output(config_or_node: Any) -> dict[str, Any]:
    return getattr(config_or_node, "workeroutput", {})


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, in the controller
def pytest_testnodedown(node: Any) -> None:
    """Say what the first worker has refused to work for, and end the session.

    Raises:
        pytest.UsageError: it has.
    """
    if mistake := _output(node).get(_MISTAKE):
        raise pytest.UsageError(mistake)
