"""How exponents that must be equal are chosen, where esp-ppq's choice loses what it aligns.

Runs only in a worker process. ``AlignmentPass`` replaces the one of esp-ppq's pipeline, after
the calibration and before biases are quantized; ``InsertRequantize`` in its exporter.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import esp_ppq.parser.espdl_exporter
import esp_ppq.quantization.quantizer.base
import torch
from esp_ppq.core import QuantizationStates
from esp_ppq.IR import OperationExporter
from esp_ppq.IR.quantize import QuantableOperation
from esp_ppq.parser.espdl.espdl_graph_utils import insert_requantize_node
from esp_ppq.parser.espdl.espdl_typedef import QUANT_OP_SET, ExporterPatternInfo
from esp_ppq.parser.espdl.export_patterns import EspdlQuantHelper
from esp_ppq.quantization.optim import QuantAlignmentPass

from espdl_hil.operators import OPERATORS
from espdl_hil.quantize.states import align_state, set_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_SUMS = ("Add", "Sub")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
_GAIN = 4.0  # how much smaller the squared error must be for esp-ppq's own choice to be left
_MAX_SHIFT = 16
_BATCHES = 8  # of the calibration, that errors are computed on
_MAX_WIDER = 4  # esp-ppq rounds to the nearest power of two; kl clips more


def install(state: Mapping[str, str]) -> None:
    """Let esp-ppq use this module's pass and pattern from now on."""
    made = functools.partial(AlignmentPass, state)
    esp_ppq.quantization.quantizer.base.QuantAlignmentPass = made
    esp_ppq.parser.espdl_exporter.InsertRequantNodePattern = InsertRequantize


class AlignmentPass(QuantAlignmentPass):
    """Steps of activations, of sums, of recurrent states, and of weights whose bias is large."""

    def __init__(self, state: Mapping[str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self._state = state

    def optimize(  # noqa: D102 - esp-ppq calls it
        self, graph: Any, dataloader: Iterable[Any], executor: Any, **_: Any
    ) -> None:
        quantized = [op for op in graph.operations.values() if isinstance(op, QuantableOperation)]
        found = {
            config: (config.dominated_by, config.scale, config.state)
            for op in quantized
            for config in op.output_quant_config
        }
        for op in quantized:
            _read_alike(op)
        values = [_run_float(graph, executor, batch) for batch in list(dataloader)[-_BATCHES:]]
        for config, variable in _free(quantized):
            _widen(config, [batch[variable.name] for batch in values])
        clipping = [op for op in quantized if op.type in _SUMS and _may_clip(op)]
        for op in dict.fromkeys(map(_last_of_chain, clipping)):
            _choose(op, values)
        super().optimize(graph)
        for config, before in found.items():
            _keep_width(config, *before)
        for source, sink in self._state.items():
            align_state(graph, source, sink)
        for op in quantized:
            if op.type in OPERATORS and OPERATORS[op.type].copies and op.type not in _SUMS:
                _read_as_written(op)
            if op.type in (*_WEIGHTED, "MatMul"):
                _widen_exactly(graph, op)
            if op.type in _WEIGHTED and len(op.inputs) == 3:
                _fit_bias(op)


def _keep_width(config: Any, root: Any, scale: Any, state: Any) -> None:
    """Take back an alignment with a reader of another width: a RequantizeLinear serves it."""
    if config.dominated_by.num_of_bits != config.num_of_bits:
        vars(config)["_dominator"] = root
        config.state = state
        if root is config:
            set_step(config, scale)


class InsertRequantize(OperationExporter):
    """A RequantizeLinear wherever a reader's exponent is not the writer's.

    esp-ppq's own leaves it out behind graph inputs, and between steps that differ by less than
    1e-5; and puts it on the first of an operator's reads of a tensor, whichever it is for.
    """

    def export(self, op: Any, graph: Any, **_: Any) -> Any:  # noqa: D102 - esp-ppq calls it
        if op.type in QUANT_OP_SET or not isinstance(op, QuantableOperation):
            return op
        reads = zip(op.input_quant_config, list(op.inputs), strict=False)
        for index, (config, variable) in enumerate(reads):
            if variable.is_parameter:
                continue
            written = written_config(graph, variable)
            if written is None or not EspdlQuantHelper.TQC_Exportable_Check(config, variable):
                continue
            if written.num_of_bits != config.num_of_bits or bool(
                (written.scale != config.scale).any()
            ):
                first = op.inputs.index(variable)
                created = insert_requantize_node(graph, variable, written, config, op)
                op.inputs[first], op.inputs[index] = op.inputs[index], op.inputs[first]
                known = ExporterPatternInfo()
                permutation = known.get_var_permute(variable.name)
                if permutation:
                    known.add_var_permute(created.outputs[0].name, permutation)
        return op


def written_config(graph: Any, variable: Any) -> Any:
    """How a tensor is quantized where it is made; None if it is not.

    A graph input has the coarsest step of those who read it, which clips least.
    """
    source = variable.source_op
    if source is not None:
        if source.type in QUANT_OP_SET or not isinstance(source, QuantableOperation):
            return None
        return source.output_quant_config[source.outputs.index(variable)]
    readers = [
        config
        for op in variable.dest_ops
        if variable.name in graph.inputs and isinstance(op, QuantableOperation)
        for config in [op.input_quant_config[op.inputs.index(variable)]]
        if config.scale is not None and EspdlQuantHelper.TQC_Exportable_Check(config, variable)
    ]
    return max(readers, key=lambda config: float(config.scale.max()), default=None)


# -- one tensor


def _read_alike(op: Any) -> None:
    """Let an operator read a tensor at one step, as often as it reads it, as in ``x * x``.

    esp-ppq gives the first read the step of what is written, and calibrates the others by
    themselves: to a smaller step where half of what was written is read.
    """
    for config, variable in zip(op.input_quant_config, op.inputs, strict=False):
        first = op.input_quant_config[op.inputs.index(variable)]
        known = not variable.is_parameter and None not in (config.scale, first.scale)
        if known and first is not config and config.is_same_scheme(first):
            config.master_by = first.dominated_by


def _free(quantized: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Activations whose step nothing but the calibration decides."""
    for op in quantized:
        for config, variable in op.config_with_variable:
            active = config.state == QuantizationStates.ACTIVATED and config.dominated_by is config
            if active and not variable.is_parameter and config.scale.numel() == 1:
                yield config, variable


def _widen(config: Any, values: Sequence[Any]) -> None:
    """Give a tensor a larger step where that much reduces what clipping loses.

    esp-ppq rounds the step that it finds to the nearest power of two: down to 0.7 of what the
    values need.
    """

    def error_at(scale: Any) -> float:
        error = 0.0
        for value in values:
            error += float(((_in_steps(value, scale, config) * scale - value) ** 2).mean())
        return error

    _coarsen(config, _MAX_WIDER, error_at)


def _coarsen(config: Any, shifts: int, error_at: Callable[[Any], float]) -> None:
    """Double a step as often as makes the error smallest, if that gains enough."""
    errors = [error_at(config.scale * 2**shift) for shift in range(shifts)]
    best = errors.index(min(errors))
    if errors[best] * _GAIN < errors[0]:
        set_step(config, config.scale * 2**best)


def _in_steps(value: Any, scale: Any, config: Any) -> Any:
    return torch.round(value / scale).clamp(config.quant_min, config.quant_max)


# -- sums


def _may_clip(op: Any) -> bool:
    """Whether an operand was calibrated with a larger step than the last of its sums has."""
    step = _last_of_chain(op).output_quant_config[0].scale
    steps = [config.scale for config in op.input_quant_config]
    return step is not None and any(
        other is not None and bool((other > step).any()) for other in steps
    )


def _last_of_chain(op: Any) -> Any:
    """The last of sums that read nothing but each other: esp-ppq gives them one exponent."""
    while (reader := _reader(op)) is not None:
        op = reader
    return op


def _reader(op: Any) -> Any:
    """The sum that alone reads what a sum gives, or a Relu makes of it; None if there is none."""
    readers = op.outputs[0].dest_ops
    if len(readers) == 1 and readers[0].type == "Relu":
        readers = readers[0].outputs[0].dest_ops
    if len(readers) == 1 and readers[0].type in _SUMS and readers[0].platform == op.platform:
        return readers[0]
    return None


def _run_float(graph: Any, executor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What quantized nodes read and give, in float."""
    quantized = [op for op in graph.operations.values() if isinstance(op, QuantableOperation)]
    found = {v.name: v for op in quantized for v in (*op.inputs, *op.outputs) if v.name}
    made = [name for name, variable in found.items() if variable.source_op is not None]
    for op in quantized:
        op.dequantize()
    try:
        values = executor.forward(dict(batch), output_names=made) if made else []
    finally:
        for op in quantized:
            op.restore_quantize_state()
    constants = {n: v.value for n, v in found.items() if v.is_parameter}
    return {**batch, **constants, **dict(zip(made, values, strict=True))}


def _choose(op: Any, values: Sequence[Mapping[str, Any]]) -> None:
    """Give a sum, and with it its operands, the step with the smallest error.

    Add and Sub take integers as they are, so operands and result share one exponent. esp-ppq
    takes that of the result, at which a larger operand (the 1 of ``1 - gate``) is clipped.
    """
    config = op.output_quant_config[0].dominated_by
    reader = op.outputs[0].dest_ops
    rectified = len(reader) == 1 and reader[0].type in ("Relu", "Clip")

    def error_at(scale: Any) -> float:
        error = 0.0
        for batch in values:
            found, exact = _sum(op, batch, scale, config) * scale, _sum(op, batch, None, config)
            if rectified:  # what is clipped below zero is nothing lost
                found, exact = found.clamp(min=0), exact.clamp(min=0)
            error += float(((found - exact) ** 2).mean())
        return error

    _coarsen(config, _MAX_SHIFT, error_at)


def _sum(op: Any, values: Mapping[str, Any], scale: Any, config: Any) -> Any:
    """A chain of sums: in float, or in saturating integers of one step."""
    first, second = (_operand(variable, values, scale, config) for variable in op.inputs)
    result = first + second if op.type == "Add" else first - second
    return result if scale is None else result.clamp(config.quant_min, config.quant_max)


def _operand(variable: Any, values: Mapping[str, Any], scale: Any, config: Any) -> Any:
    source = variable.source_op
    rectified = source is not None and source.type == "Relu"
    if rectified:
        source = source.inputs[0].source_op
    if source is not None and source.type in _SUMS and _reader(source) is not None:
        result = _sum(source, values, scale, config)
        return result.clamp(min=0) if rectified else result
    value = values[variable.name]
    return value if scale is None else _in_steps(value, scale, config)


# -- copies


def _read_as_written(op: Any) -> None:
    """Let what moves integers write at the exponent that it reads, or read at that which it must.

    The chip ignores both. esp-ppq knows so of most such operators, not of Neg and InsertZeros.
    """
    read = op.input_quant_config[0]
    activations = [variable for variable in op.inputs if not variable.is_parameter]
    for written in op.output_quant_config:
        steps = read.scale, written.scale
        if len(activations) != 1 or None in steps or bool((steps[0] == steps[1]).all()):
            continue
        if written.num_of_bits != read.num_of_bits:
            continue
        if written.dominated_by is written:
            set_step(written, read.scale)
        else:
            vars(read)["_dominator"] = read
            read.state = QuantizationStates.ACTIVATED
            set_step(read, written.scale)


# -- widths


def _widen_exactly(graph: Any, op: Any) -> None:
    """Let a layer of 16 bits read 8 bits as they are: the same step, and no value is lost.

    Where exponents are equal the chip copies; otherwise it leaves out the last of some sizes.
    """
    for config, variable in zip(op.input_quant_config[:2], op.inputs[:2], strict=True):
        written = None if variable.is_parameter else written_config(graph, variable)
        if written is not None and written.num_of_bits < config.num_of_bits:
            vars(config)["_dominator"] = config
            set_step(config, written.scale)


# -- biases


def _fit_bias(op: Any) -> None:
    """Let a bias keep its value at the exponent of the sum.

    On the S3 that is an integer of 20 bits: small weights beside a large bias get a larger step.
    """
    data, weight, bias = op.input_quant_config
    if data.scale is None or weight.scale is None or op.inputs[2].value is None:
        return
    peak = op.inputs[2].value.reshape(-1).abs()
    room = 0.75 * bias.quant_max * data.scale * weight.scale
    peak = peak if room.numel() == peak.numel() else peak.max()
    if bool((peak > room / 0.75).any()):
        more = torch.log2(peak / room).ceil().clamp(min=0)
        set_step(weight, weight.scale * 2**more)
