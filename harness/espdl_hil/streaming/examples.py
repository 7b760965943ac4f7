"""What each rule is about, before and after its edit: short networks, all run by a test.

Each is the body of ``forward(x)``: layers first (``name = nn.X``), then what is computed, then the
arguments of ``StreamingModel`` that are not ``input_shape=(1, 4, 24), frame_axis=2,
chunk_frames=(4,)``.
"""

from __future__ import annotations


class Example:
    """One rule broken, and mended.

    Attributes:
        before: What the rule is named for.
        after: What passes; one for each edit that the rule suggests.
    """

    def __init__(self, before: str, *after: str) -> None:
        self.before, self.after = before, after


_STATE = 'StreamingModel(input_shape={"x": (1, 4, 24), "h": (1, 1, 8)}, frame_axis={"x": 2}, '
_FED = 'outputs=("y", "hn"), state={"h": "hn"})'
_CONV = "conv = nn.Conv1d(4, 8, 1)\n"
_CAUSAL = "conv = nn.Conv1d(4, 8, 3)\n"
_GRU = "gru = nn.GRU(4, 8, batch_first=True)\n"
_LINEAR = "linear = nn.Linear(8, 3)\n"
_GRU_FED = _GRU + "y, hn = gru(x.transpose(1, 2), h)\nreturn y, hn\n" + _STATE + _FED


def _by_planner(text: str, streaming: str = '"auto"') -> Example:
    """What the exporter's own conversion gets wrong, and the planner right."""
    layers, _, declared = text.partition("\nStreamingModel(")
    rest = f", {declared}" if declared else ")"
    after = f"{layers}\nStreamingModel({declared}" if declared else layers
    return Example(f"{layers}\nStreamingModel(streaming={streaming}{rest}", after)


_RESIDUAL = "conv = nn.Conv1d(4, 4, 3)\nreturn conv(F.pad(x, (2, 0))) + x"
_PLAIN = (
    "first = nn.Conv1d(4, 8, 1)\nconv = nn.Conv1d(8, 8, 3)\nreturn conv(F.pad(first(x), (2, 0)))"
)

_REMOVE = 'lambda graph: graph.remove_operation(graph.operations["{}"], keep_coherence=True)'

EXAMPLES: dict[str, Example] = {
    "S101": Example(
        _CONV + "y = conv(x)\nreturn y * torch.sigmoid(y.mean(2, keepdim=True))",
        _CONV + "y = conv(x)\nreturn y * torch.sigmoid(y.mean(1, keepdim=True))",
        _CONV + "y = conv(x)\nreturn y * torch.sigmoid(F.avg_pool1d(F.pad(y, (7, 0)), 8, 1))",
    ),
    "S102": Example(
        _CONV + "return torch.softmax(conv(x), 2)",
        _CONV + "return torch.softmax(conv(x), 1)",
        _CONV + "norm = nn.BatchNorm1d(8)\nreturn norm(conv(x))",
        _CONV + "norm = nn.LayerNorm(8)\nreturn norm(conv(x).transpose(1, 2))",
    ),
    "S103": Example(
        _CONV + _LINEAR + "return linear(F.adaptive_avg_pool1d(conv(x), 1).flatten(1))",
        _CONV + "head = nn.Conv1d(8, 3, 1)\n"
        "return head(F.avg_pool1d(F.pad(conv(x), (7, 0)), 8, 1))",
        _CONV + _LINEAR + "return linear(conv(x)[:, :, -8:].mean(2))",
    ),
    "S104": Example(
        "query = nn.Linear(4, 8)\nkey = nn.Linear(4, 8)\nx = x.transpose(1, 2)\n"
        "return torch.softmax(query(x) @ key(x).transpose(1, 2), -1) @ x",
        "conv = nn.Conv1d(4, 4, 8)\nreturn conv(F.pad(x, (7, 0)))",
        _GRU_FED,
    ),
    "S105": Example(
        "conv = nn.Conv1d(4, 4, 3, padding=1)\nreturn x + conv(x)",
        "conv = nn.Conv1d(4, 4, 3)\nreturn x + conv(F.pad(x, (2, 0)))",
        "conv = nn.Conv1d(4, 4, 3, padding=2)\nreturn x + conv(x)[:, :, :-2]",
        "conv = nn.Conv1d(4, 4, 3)\nreturn x[:, :, :-1] + conv(F.pad(x, (1, 0)))",
    ),
    "S106": Example(
        'conv = nn.Conv1d(4, 16, 1)\nreturn F.interpolate(conv(x), scale_factor=2, mode="linear")',
        'conv = nn.Conv1d(4, 16, 1)\nreturn F.interpolate(conv(x), scale_factor=2, mode="nearest")',
        "up = nn.ConvTranspose1d(4, 16, 2, stride=2)\nreturn up(x)",
    ),
    "S107": Example(
        _CAUSAL + 'return conv(F.pad(x, (2, 0), mode="reflect"))',
        _CAUSAL + "return conv(F.pad(x, (2, 0)))",
    ),
    "S108": Example(
        _CONV + "linear = nn.Linear(192, 3)\nreturn linear(conv(x).flatten(1))",
        _CONV + "linear = nn.Linear(24, 3)\nreturn linear(conv(x)[:, :, -3:].flatten(1))",
        _CONV + _LINEAR + "return linear(conv(x).transpose(1, 2).flatten(0, 1))",
    ),
    "S109": Example(
        _CONV + "return conv(x)[:, :, :-12]",
        _CONV + "return conv(x)[:, :, -12:]",
        _CONV + "return conv(x)",
        _CONV + "return conv(x)[:, :, :-12]\nStreamingModel(input_shape=(1, 4, 28))",
    ),
    "S110": Example(
        _CAUSAL + "return conv(torch.cat([torch.ones(1, 4, 2), x], 2))",
        "conv = nn.Conv1d(8, 8, 1)\nreturn conv(torch.cat([x, torch.tanh(x)], 1))",
        _CAUSAL + "return conv(F.pad(x, (2, 0)))",
    ),
    "S111": Example(_CONV + "return conv(x.flip(2))", _CONV + "return conv(x)", _GRU_FED),
    "S112": Example(
        "conv = nn.Conv2d(1, 4, 1)\nreturn F.pixel_shuffle(conv(x), 2)\n"
        "StreamingModel(input_shape=(1, 1, 24, 6))",
        "up = nn.ConvTranspose2d(1, 1, 2, stride=2)\nreturn up(x)\n"
        "StreamingModel(input_shape=(1, 1, 24, 6))",
    ),
    "S113": Example(
        "conv = nn.Conv1d(4, 4, 3)\n" + _GRU + "y, hn = gru(conv(x).transpose(1, 2), h)\n"
        "return y, hn\n" + _STATE + _FED,
        "conv = nn.Conv1d(4, 4, 3)\n" + _GRU + "y, hn = gru(conv(F.pad(x, (2, 0)))"
        ".transpose(1, 2), h)\nreturn y, hn\n" + _STATE + _FED,
    ),
    "S114": Example(
        _CONV + "return F.gelu(conv(x))",
        _CONV + 'return F.gelu(conv(x), approximate="tanh")',
    ),
    "S115": Example(
        "conv = nn.Conv1d(4, 8, 1)\nreturn conv(x)\nStreamingModel(frame_axis=1)",
        "conv = nn.Conv1d(4, 8, 1)\nreturn conv(x)\nStreamingModel(frame_axis=2)",
    ),
    "S116": Example(
        _CONV + "y = conv(x)\nreturn y[y > 0]",
        _CONV + "return F.relu(conv(x) + 1)",
    ),
    "S117": Example(
        "cell = nn.GRUCell(4, 8)\nys = []\nfor t in range(x.shape[2]):\n"
        "    h = cell(x[:, :, t], h)\n    ys.append(h)\nreturn torch.stack(ys, 1), h\n"
        + _STATE.replace("(1, 1, 8)", "(1, 8)")
        + _FED,
        _GRU
        + "y, hn = gru(x.transpose(1, 2), h[None])\nreturn y, hn[0]\n"
        + _STATE.replace("(1, 1, 8)", "(1, 8)")
        + _FED,
        "smooth = nn.Conv1d(4, 4, 8, groups=4, bias=False)\nreturn smooth(F.pad(x, (7, 0)))",
    ),
    "S120": Example(
        "conv = nn.Conv1d(4, 8, 3, stride=3)\nreturn conv(x)\nStreamingModel(chunk_frames=(4,))",
        "conv = nn.Conv1d(4, 8, 3, stride=3)\nreturn conv(x)\nStreamingModel(chunk_frames=(6,))",
    ),
    "S130": Example(_GRU + "y, hn = gru(x.transpose(1, 2))\nreturn y", _GRU_FED),
    "S131": Example(
        "# in the file: input h at 2**-7 > GRU, which reads it at 2**-6 > output hn at 2**-7",
        "lstm = nn.LSTM(4, 8, batch_first=True)\n"
        "y, (hn, cn) = lstm(x.transpose(1, 2), (h, c))\nreturn y, hn, cn\n"
        'StreamingModel(input_shape={"x": (1, 4, 24), "h": (1, 1, 8), "c": (1, 1, 8)}, '
        'frame_axis={"x": 2}, outputs=("y", "hn", "cn"), state={"h": "hn", "c": "cn"})',
    ),
    "S201": _by_planner("conv = nn.Conv1d(4, 8, 3, padding=2)\nreturn conv(x)[:, :, :-2]"),
    "S202": _by_planner(_RESIDUAL),
    "S203": _by_planner(
        "three = nn.Conv1d(4, 8, 3)\nfive = nn.Conv1d(4, 8, 5)\n"
        "return three(F.pad(x, (2, 0))) + five(F.pad(x, (4, 0)))"
    ),
    "S204": _by_planner(
        "conv = nn.Conv2d(1, 4, 3, padding=(0, 1))\nreturn conv(F.pad(x, (0, 0, 2, 0)))\n"
        "StreamingModel(input_shape=(1, 1, 24, 6))"
    ),
    "S205": _by_planner(
        "conv = nn.Conv2d(1, 4, 3, padding=(1, 0))\nreturn conv(F.pad(x, (2, 0)))\n"
        "StreamingModel(input_shape=(1, 1, 6, 24), frame_axis=3)",
        '[{"input": {"window_size": 3, "op_name": "/conv/Conv", "frame_axis": 2}}]',
    ),
    "S206": _by_planner(
        "one = nn.Conv1d(4, 8, 3)\nother = nn.Conv1d(4, 8, 3)\nx = F.pad(x, (2, 0))\n"
        "return one(x) + other(x)"
    ),
    "S207": _by_planner(
        "down = nn.Conv1d(4, 8, 4, stride=2)\nup = nn.ConvTranspose1d(8, 4, 4, stride=2)\n"
        "return up(F.relu(down(F.pad(x, (2, 0)))))[:, :, :24]"
    ),
    "S208": _by_planner(
        "linear = nn.Linear(4, 8)\nreturn torch.tanh(linear(x))\n"
        "StreamingModel(input_shape=(1, 24, 4), frame_axis=1)"
    ),
    "S209": _by_planner(
        _PLAIN, '[{"input": {"window_size": 4, "op_name": None, "frame_axis": 1}}]'
    ),
    "S210": _by_planner(
        "conv = nn.Conv1d(4, 4, 3)\nreturn conv(x) + x[:, :, :-2]",
        '[{"input": {"window_size": 3, "op_name": "/conv/Conv", "frame_axis": 1}}, '
        + _REMOVE.format("/Slice")
        + "]",
    ),
    "S211": _by_planner(
        "conv = nn.Conv1d(4, 4, 1)\nlast = nn.Conv1d(4, 4, 1)\nreturn last(conv(x)[:, :, ::2])",
        _REMOVE.format("/Slice"),
    ),
    "S212": Example(
        "# in the file: input > StreamingCache > first (Conv, 1) > conv (Conv, 3)",
        "# in the file: input > first (Conv, 1) > StreamingCache > conv (Conv, 3)",
    ),
    "S213": _by_planner(
        "conv = nn.Conv1d(4, 4, 1)\nlast = nn.Conv1d(4, 4, 1)\n"
        "return last(F.max_pool1d(conv(x), 1))",
        _REMOVE.format("/MaxPool"),
    ),
    "S214": Example(
        '# exporter.export(.., values_for_test={"inputs": {"input": whole_sequence}, ..})',
        "# exporter.export(.., values_for_test=None)",
    ),
    "S301": Example(
        "conv = nn.Conv1d(4, 8, 1)\n"
        'return F.max_pool1d(F.pad(conv(x), (2, 0), value=float("-inf")), 3, 1)',
        "conv = nn.Conv1d(4, 8, 1)\n"
        'return F.max_pool1d(F.pad(F.relu(conv(x) + 1), (2, 0), value=float("-inf")), 3, 1)',
        "conv = nn.Conv1d(4, 8, 1)\nreturn F.max_pool1d(F.pad(conv(x), (2, 0)), 3, 1)",
    ),
    "S302": Example(
        _CONV + "pool = nn.AvgPool1d(3, 1, padding=1, count_include_pad=False)\n"
        "return pool(conv(x))[:, :, :-1]",
        _CONV + "pool = nn.AvgPool1d(3, 1, padding=1, count_include_pad=True)\n"
        "return pool(conv(x))[:, :, :-1]",
    ),
    "S303": Example(_CAUSAL + "return conv(x)", _CAUSAL + "return conv(F.pad(x, (2, 0)))"),
    "S304": Example(
        _CAUSAL + "last = nn.Conv1d(8, 8, 3)\nreturn last(F.pad(conv(x), (2, 0)))",
        _CAUSAL + "last = nn.Conv1d(8, 8, 3)\nreturn last(F.pad(conv(F.pad(x, (2, 0))), (2, 0)))",
    ),
    "S305": Example(
        "return x * x\nStreamingModel(bits=(16,), chunk_frames=(1,))",
        "return x * x\nStreamingModel(bits=(16,), chunk_frames=(2,))",
        'return x * x\nStreamingModel(bits=(16,), chunk_frames=(1,), chip_rounding="accept")',
    ),
    "S401": Example(
        _CONV + "y = conv(x)\nreturn y - y.mean().item()",
        _CONV + "y = conv(x)\nreturn y - y.mean(1, keepdim=True)",
        _CONV + "y = conv(x)\nreturn torch.clamp(y, -0.5, 0.5)",
    ),
    "S402": Example(
        _CONV + "return conv(x) * (6 / x.shape[2])",
        _CONV + "return conv(x) * 0.25",
    ),
    "S403": Example(
        _CONV + "return F.relu(conv(x) - torch.tensor([99.0] + 7 * [0.0]).reshape(1, 8, 1))",
        _CONV + "return torch.tanh(conv(x))",
    ),
    "S404": Example(
        _CONV + "return conv(x)\nStreamingModel("
        "stimulus=lambda generator: 9 * generator.standard_normal((1, 4, 24)), "
        "calibration=lambda generator: generator.standard_normal((1, 4, 24)))",
        _CONV + "return conv(x)\nStreamingModel("
        "stimulus=lambda generator: 9 * generator.standard_normal((1, 4, 24)), "
        "calibration=lambda generator: 9 * generator.standard_normal((1, 4, 24)))",
    ),
    "S405": Example(
        _CAUSAL + "return conv(F.pad(x, (2, 0)))\nStreamingModel(chunk_frames=(24,))",
        _CAUSAL + "return conv(F.pad(x, (2, 0)))\nStreamingModel(chunk_frames=(4,))",
    ),
}
