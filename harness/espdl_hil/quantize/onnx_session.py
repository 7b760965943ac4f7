"""How ONNX files are run here: on one thread, and silently."""

from __future__ import annotations

from typing import Any

import onnxruntime


def open_session(data: bytes, *, optimized: bool = True) -> Any:
    """Open an ``onnxruntime.InferenceSession``, which raises anything on what it cannot run.

    Args:
        data: The file, weights inside.
        optimized: Whether the graph may be rewritten first, for the sizes that it names.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
