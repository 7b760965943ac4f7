"""Recipes in, artifacts out: what the store has is read, the rest is made by a scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import IO, TYPE_CHECKING

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.quantize.artifacts import Artifacts
from espdl_hil.quantize.foreign import make_foreign
from espdl_hil.quantize.scheduler import Reply, Request
from espdl_hil.quantize.worker_result import error_from_json
from espdl_hil.scratch import scratch_folder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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
_ENVIRONMENT = {
    # One thread a worker: workers run side by side, and small networks are quicker so.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PYTHONHASHSEED": "0",  # esp-ppq writes constants in the order of a set
}


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
        request = Request(missing, store.root, jobs or os.cpu_count() or 1, timeout_s)
        try:
            with closing(_replies(request)) as replies:
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


def _replies(request: Request) -> Generator[Reply, None, None]:
    """Have a request made, and yield a reply for each of its recipes.

    Raises:
        QuantizeError: stage ``build``; the scheduler did not start or ended early.
    """
    with tempfile.TemporaryFile() as output, start_scheduler(output) as (process, channel):
        try:
            channel.send(request)
            if not channel.poll(START_TIMEOUT_S):
                raise _broken(f"did not start within {START_TIMEOUT_S:.0f} s", output)
            failure = channel.recv()
            if failure is not None:
                raise _broken(f"did not start: {failure}", output)
            for _ in request.recipes:
                yield channel.recv()
        except (EOFError, OSError):
            raise _broken(f"ended with status {process.wait()}", output) from None


@contextmanager
def start_scheduler(output: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Start a scheduler; at the end of the block it kills its workers and ends.

    Args:
        output: Receives what it prints; workers print to their own logs.

    Returns:
        The process, and the pipe that ``scheduler.main`` describes.
    """
    ours, theirs = Pipe()
    with ours, scratch_folder() as scratch:  # onnxruntime leaves files in TMPDIR
        with theirs:
            descriptor = theirs.fileno()
            # What this process can import, the workers can.
            path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c"),
                    _MAIN.format(descriptor=descriptor, parent=os.getpid()),
                ],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path, "TMPDIR": str(scratch)},
                start_new_session=True,  # a Ctrl-C is ours to handle
            )
        try:
            yield process, ours
        finally:
            ours.close()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:  # still importing
                process.kill()
                process.wait()


def _broken(what: str, output: IO[bytes]) -> QuantizeError:
    output.seek(0)
    tail = output.read().decode(errors="replace").strip().splitlines()[-3:]
    said = f"; it said: {' | '.join(tail)}" if tail else ""
    return QuantizeError(
        f"the quantize process {what}{said}",
        stage="build",
        hint="check that 'python -c \"import torch, esp_ppq\"' works in this environment",
    )
