"""Recipes in, artifacts out: what the store has is read, the rest is made by a scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.quantize.artifacts import Artifacts
from espdl_hil.quantize.foreign import make_foreign
from espdl_hil.quantize.scheduler import PROCESS_ENVIRONMENT, Reply, Request
from espdl_hil.quantize.worker_result import error_from_json
from espdl_hil.scratch import scratch_folder

if TYPE_CHECKING:
    from espdl_hil.quantize.recipe import Recipe
    from espdl_hil.quantize.store import Store

Progress = Callable[[int, int, str], None]  # recipes done, recipes in all, label of the last
Result = Artifacts | HarnessError

TIMEOUT_S = 300.0  # a large network calibrates in tens of seconds
START_TIMEOUT_S = 120.0  # importing torch from a cold disk
STOP_TIMEOUT_S = 5.0
# Imports take seconds, in which no thread of Python may look whether the parent lives.
_MAIN = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, linux/prctl.h
    if os.getppid() != {parent}:
        sys.exit()
from espdl_hil.quantize.scheduler import main
main({descriptor}, {parent})
"""


def prepare(
    recipes: Sequence[Recipe],
    store: Store,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Result]:
    """Make or find the artifacts of many recipes.

    No process starts when the store has everything. What another process is making at the
    moment is waited for, not made twice.

    Args:
        recipes: What to make; equal recipes are made once.
        store: Where artifacts are kept.
        jobs: Workers at once; None means one a processor.
        progress: Called after each recipe.
        timeout_s: Longest time for one recipe, and for the float trace that it starts from.

    Returns:
        By ``Recipe.key``: the artifacts, or the error, so that one bad model does not hide
        the others; also of what is left of a recipe that refuses some chunk sizes only, which
        ``result_of`` finds.

    Raises:
        ConfigError: the store cannot be written.
    """
    wanted = {recipe.key: recipe for recipe in recipes}
    results: dict[str, Result] = {}

    def finish(key: str, result: Result) -> None:
        results[key] = result
        if progress is not None:
            progress(len(results), len(wanted), wanted[key].label)

    for key, recipe in wanted.items():
        entry = store.get(recipe)
        if entry is not None:
            finish(key, Artifacts(entry))
        elif recipe.foreign:
            finish(key, _take_in(recipe, store))
    missing = [recipe for key, recipe in wanted.items() if key not in results]
    if missing:
        request = Request(
            missing,
            store.root,
            jobs or os.cpu_count() or 1,
            timeout_s,
            path=_import_path(),
            folder=Path.cwd(),
            environment=dict(os.environ),
        )
        try:
            with one_scheduler() as scheduler, closing(scheduler.replies(request)) as replies:
                for reply in replies:
                    new = [text for text in reply.discarded if text not in store.discarded]
                    store.discarded += new
                    finish(reply.key, _result_of(reply))
        except QuantizeError as error:  # the scheduler is gone: nothing more can be made
            for recipe in missing:
                if recipe.key not in results:
                    finish(recipe.key, error)
    store.prune()
    refused = [(r, e) for key, r in wanted.items() if isinstance(e := results[key], HarnessError)]
    rests = [rest for recipe, error in refused if (rest := recipe.without(error)) is not None]
    if rests:
        results |= prepare(rests, store, jobs=jobs, progress=progress, timeout_s=timeout_s)
    return results


def result_of(results: Mapping[str, Result], recipe: Recipe, chunk_frames: int) -> Result:
    """What ``prepare`` made of one chunk size of a recipe, whatever became of the others."""
    result = results[recipe.key]
    if isinstance(result, HarnessError):
        rest = recipe.without(result)
        if rest is not None and chunk_frames in rest.chunk_frames:
            return result_of(results, rest, chunk_frames)
        if isinstance(result, StreamingError):
            return result.about(chunk_frames)
    return result


def _take_in(recipe: Recipe, store: Store) -> Result:
    """Make the entry of files from elsewhere; neither torch nor the exporter is needed."""
    with store.lock(recipe):
        entry = store.get(recipe)
        if entry is not None:  # another process was quicker
            return Artifacts(entry)
        directory = store.begin(recipe)
        try:
            return Artifacts(store.publish(recipe, make_foreign(recipe, directory)))
        except HarnessError as error:
            store.fail(recipe)
            return error


def _result_of(reply: Reply) -> Result:
    if reply.entry is not None:
        return Artifacts(reply.entry)
    assert reply.error is not None
    error = error_from_json(reply.error)
    if not reply.key:
        raise error
    return error


class _SchedulerProcess:
    """The process of ``scheduler.main``, started at the first request."""

    def __init__(self) -> None:
        self._resources = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """Kill its workers, and end it."""
        self._resources.close()
        self._process = None

    def replies(self, request: Request) -> Generator[Reply, None, None]:
        """Have a request made, and yield a reply for each of its recipes.

        Raises:
            QuantizeError: stage ``build``; the scheduler did not start or ended early.
        """
        finished = False
        try:
            starting = self._process is None or self._process.poll() is not None
            if starting:
                self.close()
                self._start()
            self._channel.send(request)
            if starting:
                self._await_start()
            for _ in request.recipes:
                yield self._channel.recv()
            finished = True
        except (EOFError, OSError):
            assert self._process is not None
            raise self._broken(f"ended with status {self._process.wait()}") from None
        finally:
            if not finished:  # what it still says would be taken for the next request's
                self.close()

    def _start(self) -> None:
        self._output = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        scratch = self._resources.enter_context(scratch_folder())  # onnxruntime leaves files there
        ours, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c"),
                    _MAIN.format(descriptor=descriptor, parent=os.getpid()),
                ],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=self._output,  # workers print to their own logs
                stderr=self._output,
                env={
                    **os.environ,
                    **PROCESS_ENVIRONMENT,
                    "PYTHONPATH": os.pathsep.join(_import_path()),
                    "TMPDIR": str(scratch),
                },
                start_new_session=True,  # a Ctrl-C is ours to handle
            )
        self._resources.callback(_end, self._process)
        self._channel = self._resources.enter_context(ours)

    def _await_start(self) -> None:
        if not self._channel.poll(START_TIMEOUT_S):
            raise self._broken(f"did not start within {START_TIMEOUT_S:.0f} s")
        failure = self._channel.recv()
        if failure is not None:
            raise self._broken(f"did not start: {failure}")

    def _broken(self, what: str) -> QuantizeError:
        self._output.seek(0)
        tail = self._output.read().decode(errors="replace").strip().splitlines()[-3:]
        said = f"; it said: {' | '.join(tail)}" if tail else ""
        return QuantizeError(
            f"the quantize process {what}{said}",
            stage="build",
            hint="check that 'python -c \"import torch, esp_ppq\"' works in this environment",
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a scheduler whose pipe is closed."""
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:  # still importing
        process.kill()
        process.wait()


def _import_path() -> tuple[str, ...]:
    """What this process can import, the workers can."""
    return tuple(entry or str(Path.cwd()) for entry in sys.path)


_thread = threading.local()  # its scheduler, within a block


@contextmanager
def one_scheduler() -> Iterator[_SchedulerProcess]:
    """Share one process among this thread's calls of ``prepare`` in the block.

    It imports for seconds, at the first of them.
    """
    shared = getattr(_thread, "scheduler", None)
    if shared is not None:
        yield shared
        return
    with closing(_SchedulerProcess()) as _thread.scheduler:
        try:
            yield _thread.scheduler
        finally:
            _thread.scheduler = None
