"""Many boards in one run: which worker of pytest-xdist has which target, and gets which tests.

Every worker has a seat. From its seat, the targets of the selected tests and the boards, worker
and controller conclude alike which targets it serves; which board of these it gets, its claim says.
"""

from __future__ import annotations

import re
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import pytest

from espdl_hil.errors import ConfigError, HarnessError
from espdl_hil.plugin.worker import SEAT
from espdl_hil.proof.settings import SERIAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.proof.settings import Settings

_RECIPE = re.compile(r"\[(\w+)-([\w.]+-int\d+)-chunk\d+[\]-]|\[(\w+)\]")


def deal(settings: Settings, targets: Sequence[str], seat: int, workers: int) -> tuple[str, ...]:
    """Return the targets, of those of the selected tests, whose boards the worker in a seat uses.

    Raises:
        ConfigError: there are more workers than boards.
    """
    if settings.device != SERIAL or workers < 2:
        _require_worker_a_board(settings, targets)
        return tuple(targets)
    if workers < len(targets):
        return tuple(targets[seat::workers])
    of_target = [
        [board.target for board in settings.boards if board.target == target] or [target]
        for target in targets
    ]
    seats = [target for target in chain(*zip_longest(*of_target)) if target]
    if len(seats) < workers:
        if not settings.boards:
            raise ConfigError(
                f"{workers} workers cannot share one board a target",
                hint="leave out -n, or add --hil-device sim; or name more boards, in a bench file "
                "or with --target 'esp32s3|esp32s3' --port 'A|B'",
            )
        raise ConfigError(
            f"{workers} workers cannot share {len(seats)} boards of {', '.join(targets)}",
            hint=f"use --hil-boards {len(seats)}",
        )
    return (seats[seat],)


def _require_worker_a_board(settings: Settings, targets: Sequence[str]) -> None:
    """Let no board of the command line go unused."""
    named = [b.target for b in settings.boards if not b.bench and b.target in targets]
    several = next((target for target in named if named.count(target) > 1), None)
    if several is not None:
        raise ConfigError(
            f"--port names {named.count(several)} boards of {several}, and one process uses one",
            hint=f"use them side by side: add --hil-boards {len(named)}",
        )


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, in the controller
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send each test to a worker with a board of its target, whatever ``--dist`` says."""
    from espdl_hil.plugin.options import read_settings

    try:
        settings = read_settings(config)
    except HarnessError:  # the workers say it
        return None
    if settings.device != SERIAL or len(config.getoption("tx")) < 2:
        return None
    return _scheduling(config, log, settings)


def _scheduling(config: pytest.Config, log: Any, settings: Settings) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class BoardScheduling(LoadScopeScheduling):
        """By recipe, to a worker that has the target; a recipe stays on the board that holds it."""

        def _split_scope(self, nodeid: str) -> str:
            match = _RECIPE.search(nodeid)
            return "-".join(filter(None, match.groups())) if match else nodeid

        def schedule(self) -> None:
            if self.collection is not None or not self._check_nodes_have_same_collection():
                super().schedule()
                return
            collection = list(next(iter(self.registered_collections.values())))
            self.collection: list[str] | None = collection
            # The widest first, which take longest, so that the boards end together
            for nodeid in sorted(collection, key=lambda nodeid: "-int8-" in nodeid):
                self.workqueue.setdefault(self._split_scope(nodeid), {})[nodeid] = False
            for node in [*self.nodes, *self.nodes]:  # two units each, as xdist does
                self._reschedule(node)

        def _reschedule(self, node: Any) -> None:
            if not node.shutting_down and self._next_scope(node) is None:
                node.shutdown()
            else:
                super()._reschedule(node)

        def _assign_work_unit(self, node: Any) -> None:
            self.workqueue.move_to_end(self._next_scope(node), last=False)
            super()._assign_work_unit(node)

        def _next_scope(self, node: Any) -> str | None:
            """The first work that the node's board can do."""
            known = [
                scope.partition("-")[0] for scope in map(self._split_scope, self.collection or ())
            ]
            targets = tuple(dict.fromkeys(name for name in known if name in settings.targets))
            try:
                mine = deal(settings, targets, node.workerinput[SEAT], self.numnodes)
            except ConfigError:  # the worker says it
                mine = targets
            return next(
                (
                    scope
                    for scope in self.workqueue
                    if (target := scope.partition("-")[0]) in mine or target not in targets
                ),
                None,
            )

    return BoardScheduling(config, log)
