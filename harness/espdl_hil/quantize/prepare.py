"""Recipes in, artifacts out: what the store has is read, the rest is made side by side."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from espdl_hil.errors import HarnessError, QuantizeError
from espdl_hil.quantize.artifacts import LOG, Artifacts
from espdl_hil.quantize.outcome import Outcome, crash_error
from espdl_hil.quantize.scheduler import WorkerPool

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.quantize.recipe import Recipe
    from espdl_hil.quantize.store import Store

Progress = Callable[[int, int, str], None]  # recipes done, recipes in all, label of the last
Result = Artifacts | HarnessError

RECIPE_TIMEOUT_S = 300.0  # a large network calibrates in tens of seconds
OTHERS_POLL_S = 0.2  # how often to look whether another process has made an entry


def prepare(
    recipes: Sequence[Recipe],
    store: Store,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    timeout_s: float = RECIPE_TIMEOUT_S,
) -> dict[str, Result]:
    """Make or find the artifacts of many recipes.

    No process starts when the store has everything. What another process is making at the
    moment is waited for, not made twice.

    Args:
        recipes: What to make; equal recipes are made once.
        store: Where artifacts are kept.
        jobs: Workers at once; None means one a processor.
        progress: Called after each recipe.
        timeout_s: Longest time for one recipe.

    Returns:
        By ``Recipe.key``: the artifacts, or the error, so that one bad model does not hide
        the others.

    Raises:
        ConfigError: the store cannot be written.
    """
    wanted = {recipe.key: recipe for recipe in recipes}
    run = _Run(store, len(wanted), progress, timeout_s)
    missing = [recipe for recipe in wanted.values() if not run.find(recipe)]
    if missing:
        with ExitStack() as stack:
            run.make(missing, jobs or os.cpu_count() or 1, stack)
    store.prune()
    return {key: run.results[key] for key in wanted}


@dataclass
class _Job:
    """One recipe that a worker is making, under its lock."""

    recipe: Recipe
    lock: FileLock
    directory: Path
    deadline_s: float = math.inf
    late: bool = False


class _Run:
    """The state of one ``prepare`` call."""

    def __init__(
        self, store: Store, total: int, progress: Progress | None, timeout_s: float
    ) -> None:
        self.results: dict[str, Result] = {}
        self._store = store
        self._total = total
        self._progress = progress
        self._timeout_s = timeout_s
        self._waiting: list[Recipe] = []
        self._jobs: dict[str, _Job] = {}

    def find(self, recipe: Recipe) -> bool:
        """Take a recipe's result from the store, if it is there."""
        found = self._store.get(recipe)
        if found is not None:
            self._finish(recipe, found)
        return found is not None

    def make(self, missing: list[Recipe], jobs: int, stack: ExitStack) -> None:
        """Make what is missing, *jobs* at once."""
        stack.callback(self._release_all)
        pool = stack.enter_context(WorkerPool())
        self._waiting = list(missing)
        try:
            while self._start(jobs, pool):
                for key, status in pool.wait(self._patience_s()):
                    self._end(self._jobs.pop(key), status)
                self._kill_late(pool)
        except QuantizeError as error:  # the zygote is gone: nothing more can be made
            for recipe in [*self._waiting, *(job.recipe for job in self._jobs.values())]:
                self._finish(recipe, error)

    def _start(self, jobs: int, pool: WorkerPool) -> bool:
        """Start what there is room for; return whether anything is left to wait for."""
        for recipe in list(self._waiting):
            if len(self._jobs) >= jobs:
                break
            lock = self._store.lock(recipe)
            try:
                lock.acquire(blocking=False)
            except Timeout:  # another process is making it
                continue
            self._waiting.remove(recipe)
            if self.find(recipe):  # another process has made it
                lock.release()
                continue
            job = self._jobs[recipe.key] = _Job(recipe, lock, self._store.begin(recipe))
            request = {"source": str(recipe.source), "recipe": recipe.to_json()}
            pool.submit(recipe.key, request, job.directory)
            job.deadline_s = time.monotonic() + self._timeout_s  # the imports do not count
        return bool(self._waiting or self._jobs)

    def _patience_s(self) -> float:
        """How long to wait for a worker before looking around again."""
        deadlines_s = [job.deadline_s for job in self._jobs.values() if not job.late]
        if not self._jobs:
            return OTHERS_POLL_S
        return min(deadlines_s, default=math.inf) - time.monotonic()

    def _kill_late(self, pool: WorkerPool) -> None:
        now_s = time.monotonic()
        for key, job in self._jobs.items():
            if now_s >= job.deadline_s and not job.late:
                job.late = True
                pool.kill(key)

    def _end(self, job: _Job, status: int) -> None:
        """Turn what a worker left into a result, and let go of the recipe."""
        outcome = Outcome.take(job.directory)
        log = job.directory / LOG
        if outcome is None:
            said = log.read_text(errors="replace") if log.exists() else ""
            error: HarnessError | None = crash_error(
                status, said, timeout_s=self._timeout_s if job.late else None
            )
        else:
            error = outcome.error
        if error is None:
            assert outcome is not None
            result: Result = self._store.publish(job.recipe, outcome.dependencies)
        else:
            kept = self._store.fail(job.recipe)
            if kept is not None and isinstance(error, QuantizeError):
                note = f"the exporter's log is {kept}"
                error.hint = note if error.hint is None else f"{error.hint}; {note}"
            result = error
        job.lock.release()
        self._finish(job.recipe, result)

    def _finish(self, recipe: Recipe, result: Result) -> None:
        self.results[recipe.key] = result
        if self._progress is not None:
            self._progress(len(self.results), self._total, recipe.label)

    def _release_all(self) -> None:
        """Let go of what an interrupted run still holds; the workers are gone by now."""
        for job in self._jobs.values():
            self._store.fail(job.recipe)
            job.lock.release()
