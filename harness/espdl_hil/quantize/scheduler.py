"""The process that imports torch and the exporter once, and forks a worker for each task.

::

    pytest ──recipes──▶ scheduler ──fork──▶ worker: one trace, or one recipe of it; then gone
           ◀──results──           ──fork──▶ worker

Forking keeps each recipe in fresh exporter state (the exporter holds module-level tables
that a failed export leaves dirty) without paying two seconds of imports each time.
``multiprocessing`` forks, waits and kills. Its own fork server would have to be started from
the user's process, and a guest cannot do that: it runs the user's ``__main__`` again in the
server and in each worker, takes its environment (``PYTHONHASHSEED`` counts here) from the
user's ``os.environ``, does not get ``sys.path``, and writes to the user's terminal. So the
server is this process, which ``prepare`` starts, and which ends with it.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from espdl_hil.errors import ConfigError, HarnessError, QuantizeError
from espdl_hil.quantize.artifacts import LOG
from espdl_hil.quantize.recipe import Recipe, Trace
from espdl_hil.quantize.store import Store
from espdl_hil.quantize.worker_result import WorkerResult, crash_error, error_to_json
from espdl_hil.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.context import ForkProcess

PR_SET_PDEATHSIG = 1  # linux/prctl.h; the start of this process has set it
OTHERS_POLL_S = 0.2  # how often to look whether another process has made an entry
_FORK = multiprocessing.get_context("fork")
# Of this process and of its workers, whatever the environment of a request is.
PROCESS_ENVIRONMENT = {
    # One thread a worker: workers run side by side, and small networks are quicker so.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PYTHONHASHSEED": "0",  # esp-ppq writes constants in the order of a set
}


@dataclass(frozen=True)
class Request:
    """What the scheduler is asked to make.

    Attributes:
        recipes: Different recipes; the store may have some of them by now.
        store: Root of the store.
        jobs: Workers at once.
        timeout_s: Longest time for one trace or one recipe.
        path: Where workers look for modules, as ``sys.path`` has it.
        folder: Workers' working folder.
        environment: Workers' environment.
    """

    recipes: Sequence[Recipe]
    store: Path
    jobs: int
    timeout_s: float
    path: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """What became of one recipe.

    Attributes:
        key: ``Recipe.key``; empty when the error is everybody's.
        entry: Its entry in the store; None when there is an error.
        error: From ``error_to_json``.
        discarded: What was found damaged in the store since the last reply.
    """

    key: str
    entry: Path | None = None
    error: dict[str, Any] | None = None
    discarded: tuple[str, ...] = ()


def main(descriptor: int, parent: int) -> None:
    """Make what is asked for, one request after the other; end when the pipe or the parent does.

    Args:
        descriptor: The inherited end of a two-way pipe. In: a ``Request``. Out: once, None when
            the imports are done, or what they raised as text; then a ``Reply`` a recipe.
        parent: Process that started this one; it may have ended already.
    """
    with Connection(descriptor) as channel:
        request = channel.recv()
        handles = [channel, *_process_handle(parent)]
        try:
            with _ending_with(handles):
                _import_everything()
        except BaseException as error:  # noqa: BLE001 - said to the parent, whatever it is
            channel.send(f"{type(error).__name__}: {error}")
            return
        channel.send(None)
        while request is not None:
            scheduler = _Scheduler(request, channel)
            try:
                scheduler.run(handles)
            except ConfigError as error:  # the store cannot be written
                channel.send(Reply("", error=error_to_json(error)))
            finally:
                scheduler.end_all()
            request = _next_request(channel, handles)


def _next_request(channel: Connection, handles: list[Any]) -> Request | None:
    """Wait for another request; None when there is nobody left to ask."""
    if channel not in wait(handles):
        return None
    try:
        request: Request = channel.recv()
    except (EOFError, OSError):
        return None
    return request


@contextmanager
def _ending_with(handles: list[Any]) -> Iterator[None]:
    """End this process when a handle becomes ready while the body runs, which cannot look."""
    stopped, stop = Pipe(duplex=False)

    def watch() -> None:
        if stopped not in wait([*handles, stopped]):
            os._exit(1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)  # from here on this process looks
        stop.close()
        thread.join()  # no thread is left to fork
        stopped.close()


def _import_everything() -> None:
    sys.modules["sympy"] = None  # type: ignore[assignment]  # half a second, for tables of onnxsim
    import onnxsim  # noqa: F401

    del sys.modules["sympy"]
    from espdl_hil.quantize import worker

    with scratch_folder() as scratch:
        worker.warm_up(scratch)
    gc.collect()
    gc.freeze()  # what was imported is never garbage: esp-ppq collects often


def _process_handle(process: int) -> list[int]:
    """Return what becomes ready when a process ends, on systems that have such a thing.

    Elsewhere the pipe alone says so, unless a process that the parent forked still holds it.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # an old kernel, or it has ended already
            return [os.pidfd_open(process)]
    return []


@dataclass
class _Task:
    """A trace or a recipe in the making, under its lock."""

    item: Trace | Recipe
    lock: FileLock
    directory: Path
    process: ForkProcess
    deadline_s: float
    late: bool = False


class _Scheduler:
    """The state of one request."""

    def __init__(self, request: Request, channel: Connection) -> None:
        self._request = request
        self._channel = channel
        self._store = Store(request.store)
        self._said = 0  # of what the store has discarded
        self._wanted = {recipe.key: recipe for recipe in request.recipes}  # and not finished
        self._traces: dict[str, Path] = {}
        self._running: dict[str, _Task] = {}

    def run(self, parent: list[Any]) -> None:
        """Work until everything is made, or one of *parent* is ready."""
        while self._start():
            sentinels = [task.process.sentinel for task in self._running.values()]
            ready = wait([*parent, *sentinels], self._patience_s())
            if any(handle in ready for handle in parent):
                return
            for task in list(self._running.values()):
                if task.process.sentinel in ready:
                    self._end(task)
            self._kill_late()

    def end_all(self) -> None:
        """Kill what is still running, and let go of it."""
        for task in self._running.values():
            task.process.kill()
            task.process.join()
            self._store.fail(task.item)
            task.lock.release()

    def _start(self) -> bool:
        """Start what there is room for; return whether anything is left to wait for."""
        for recipe in list(self._wanted.values()):
            if len(self._running) >= self._request.jobs:
                break
            trace = self._traces.get(recipe.trace.key) or self._find_or_start(recipe.trace)
            if trace is not None:
                self._traces[recipe.trace.key] = trace
                entry = self._find_or_start(recipe, trace)
                if entry is not None:
                    self._finish(recipe, entry)
        return bool(self._wanted)

    def _find_or_start(self, item: Trace | Recipe, trace: Path | None = None) -> Path | None:
        """Return an entry, or None when somebody, from now on perhaps we, is making it."""
        if item.key in self._running:
            return None
        lock = self._store.lock(item)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        entry = self._store.get(item)
        if entry is not None:
            lock.release()
            return entry
        directory = self._store.begin(item)
        process = _FORK.Process(
            target=_work, args=(self._channel, self._request, item, trace, directory)
        )
        process.start()
        deadline_s = time.monotonic() + self._request.timeout_s
        self._running[item.key] = _Task(item, lock, directory, process, deadline_s)
        return None

    def _patience_s(self) -> float | None:
        """How long to wait for a worker before looking around again."""
        if not self._running:
            return OTHERS_POLL_S
        deadlines_s = [task.deadline_s for task in self._running.values() if not task.late]
        first_s = min(deadlines_s, default=math.inf)
        return None if math.isinf(first_s) else max(first_s - time.monotonic(), 0)

    def _kill_late(self) -> None:
        now_s = time.monotonic()
        for task in self._running.values():
            if now_s >= task.deadline_s and not task.late:
                task.late = True
                task.process.kill()

    def _end(self, task: _Task) -> None:
        """Turn what a worker left into an entry or an error, and let go of the task."""
        task.process.join()
        status = task.process.exitcode
        assert status is not None
        result = WorkerResult.take(task.directory)
        if result is None:
            log = task.directory / LOG
            said = log.read_text(errors="replace") if log.exists() else ""
            timeout_s = self._request.timeout_s if task.late else None
            result = WorkerResult(crash_error(status, said, timeout_s=timeout_s))
        outcome: Path | HarnessError
        if result.error is None:
            outcome = self._store.publish(task.item, result.dependencies)
        else:
            outcome, kept = result.error, self._store.fail(task.item)
            exporter_ran = isinstance(task.item, Recipe) and isinstance(outcome, QuantizeError)
            if kept is not None and exporter_ran:
                hints = (outcome.hint, f"the exporter's log is {kept}")
                outcome.hint = "; ".join(filter(None, hints))
        del self._running[task.item.key]
        task.lock.release()
        self._note(task.item, outcome)

    def _note(self, item: Trace | Recipe, outcome: Path | HarnessError) -> None:
        """Finish a recipe; a trace finishes its recipes only when it failed."""
        if isinstance(item, Recipe):
            self._finish(item, outcome)
        elif isinstance(outcome, Path):
            self._traces[item.key] = outcome
        else:
            for recipe in list(self._wanted.values()):
                if recipe.trace == item:
                    self._finish(recipe, outcome)

    def _finish(self, recipe: Recipe, outcome: Path | HarnessError) -> None:
        del self._wanted[recipe.key]
        discarded = tuple(self._store.discarded[self._said :])
        self._said += len(discarded)
        if isinstance(outcome, Path):
            self._channel.send(Reply(recipe.key, entry=outcome, discarded=discarded))
        else:
            error = error_to_json(outcome)
            self._channel.send(Reply(recipe.key, error=error, discarded=discarded))


def _work(
    channel: Connection,
    request: Request,
    item: Trace | Recipe,
    trace: Path | None,
    directory: Path,
) -> None:
    """Make one item in this fresh process."""
    channel.close()
    kept = {**PROCESS_ENVIRONMENT, "TMPDIR": os.environ["TMPDIR"]}
    os.environ.clear()
    os.environ.update({**request.environment, **kept})
    os.chdir(request.folder)
    sys.path[:] = request.path
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    from espdl_hil.quantize import worker

    worker.run(item, trace, directory)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the model may have started are nothing to wait for


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
