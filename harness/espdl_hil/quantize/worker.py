"""The process of one trace or one recipe: it ends with a typed result, whatever happens in it.

Only the scheduler imports this module: behind it are torch and the exporter.
"""

from __future__ import annotations

import re
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.model import describe_error, load_model
from espdl_hil.operators import OPERATORS
from espdl_hil.quantize import float_graph
from espdl_hil.quantize.artifacts import LOG
from espdl_hil.quantize.conversion import Conversion
from espdl_hil.quantize.dependencies import Dependencies
from espdl_hil.quantize.float_faults import NO_OPERATOR, find_faults
from espdl_hil.quantize.recipe import Trace
from espdl_hil.quantize.stages import Stages
from espdl_hil.quantize.trace import ONNX, FloatTrace, make_trace
from espdl_hil.quantize.worker_result import WorkerResult
from espdl_hil.streaming import rules
from espdl_hil.streaming.names import module_path

if TYPE_CHECKING:
    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize.recipe import Recipe

_QUANTIZED = frozenset((rules.STATE_EXPONENT.id,))  # what the float graph does not show
_FAILED_NODE = re.compile(r"Op Execution Error: .*\(Type: (?P<type>\w+)")


def warm_up(directory: Path) -> None:
    """Pay once, before forking, for what torch and onnx load at first use.

    Nothing of esp-ppq runs: its state is to be fresh in each worker.
    """
    torch.set_num_threads(1)
    np.random.default_rng()  # imported when it is first used
    float_graph.warm_up(directory / ONNX)


def run(task: Trace | Recipe, trace: Path | None, directory: Path) -> None:
    """Make one entry of the store, and leave a ``WorkerResult`` beside it whatever happens.

    Args:
        task: What to make.
        trace: The store's entry of a recipe's trace; None when *task* is a trace.
        directory: Empty but for the log, which is this process's standard output.
    """
    stages = Stages(directory / LOG)
    result = WorkerResult()
    try:
        if isinstance(task, Trace):
            result = WorkerResult(dependencies=make_trace(task, directory, stages))
        else:
            assert trace is not None
            read = FloatTrace.read(trace)
            float_graph.check_size(read.onnx, task.target, task.bits)
            dependencies = Dependencies(task.source, trace, directory, Path(tempfile.gettempdir()))
            with dependencies.recording():  # passes of the model file may read, too
                Conversion(task, read, directory, stages).make()
            found = dependencies.hashes(task.source.parent)
            result = WorkerResult(dependencies={**read.meta["dependencies"], **found})
        task.check_source()
    except HarnessError as raised:
        result = WorkerResult(_explained(raised, task, trace or directory))
    except Exception as raised:  # noqa: BLE001 - esp-ppq raises anything; the parent shows it
        traceback.print_exc()
        frame = traceback.extract_tb(raised.__traceback__)[-1]
        error = QuantizeError(
            f"{describe_error(raised)} (at {frame.filename}:{frame.lineno})",
            stage=stages.current,
            hint=_hint(raised, stages),
        )
        result = WorkerResult(_explained(error, task, trace or directory))
    result.write(directory)


def _explained(error: HarnessError, task: Trace | Recipe, directory: Path) -> HarnessError:
    """All faults of the network in its author's words, where they tell why it failed."""
    checked = isinstance(error, QuantizeError) and error.stage == "check"  # it has been planned
    tracing = isinstance(task, Trace) and not isinstance(error, StreamingError)
    if tracing or checked or not (directory / ONNX).exists():
        return error
    try:
        faults = find_faults(directory / ONNX, _declared(task))
    except Exception:  # noqa: BLE001 - then the error has to say it all
        traceback.print_exc()
        return error
    if isinstance(error, StreamingError) and error.rule == rules.UNRUNNABLE.id:
        # The files say more of operators that there are.
        faults = [f for f in faults if f.rule != error.rule or NO_OPERATOR in f.reason]
        told = {fault.node for fault in faults}
        faults += [fault for fault in error.every if fault.node not in told]
    elif isinstance(error, StreamingError):
        mine = isinstance(task, Trace) or error.rule in _QUANTIZED
        if any(fault.rule == rules.LOOP.id for fault in faults):
            mine = False  # that copies have a length is its consequence
        faults = [fault for fault in faults if not mine or fault.node != error.node]
        if mine or not faults:
            faults.insert(0, error)
    if not faults:
        return error
    if faults[0] is error:
        node = module_path(error.node)
        faults[0] = StreamingError(error.reason, rule=error.rule, node=node, hint=error.hint)
    faults[0].others = [vars(fault) for fault in faults[1:]]
    return faults[0]


def _declared(task: Trace | Recipe) -> StreamingModel:
    model = load_model(task.source)
    return model if isinstance(task, Trace) else replace(model, chunk_frames=task.chunk_frames)


def _hint(raised: Exception, stages: Stages) -> str | None:
    """What probably is the reason that esp-ppq raised."""
    failed = _FAILED_NODE.search(str(raised))
    if failed and failed["type"] not in OPERATORS:
        return f"ESP-DL has no operator {failed['type']}; docs/operators.md lists those it has"
    logged = stages.new_lines()
    return f"before that the exporter logged: {logged[-1].text}" if logged else None
