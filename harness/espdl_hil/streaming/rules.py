"""Every rule that the analysis and lint can name, in one registry. Ids are stable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming.findings import Finding, Rule, Severity, find

if TYPE_CHECKING:
    from espdl_hil.errors import StreamingError

REDUCTION = Rule(
    "S101",
    "reduction over time",
    "A reduction over the frame axis needs frames that have not arrived yet.",
    "reduce over the channels only, or replace it by a causal average pool (AvgPool1d over a fixed "
    "window with left padding)",
)
NORMALIZATION = Rule(
    "S102",
    "softmax or normalization over time",
    "Its denominator needs frames that have not arrived yet.",
    "normalize over the channels of each frame: torch.softmax(x, 1); nn.BatchNorm1d, or "
    "nn.LayerNorm on x.transpose(1, 2), instead of nn.GroupNorm or nn.InstanceNorm1d",
)
GLOBAL_POOL = Rule(
    "S103",
    "global pooling over time",
    "A global pool needs frames that have not arrived yet; in a stream it would see one chunk.",
    "use a causal average pool over a fixed window; or, where the mean is all that goes on, keep "
    "the last frames with x[:, :, -n:]",
)
ATTENTION = Rule(
    "S104",
    "matrix product over time",
    "A product of two tensors that both carry time (attention), or one that contracts the frame "
    "axis, mixes frames of the whole sequence.",
    "use a convolution or a recurrent layer for context in time",
)
NONCAUSAL = Rule(
    "S105",
    "non-causal padding",
    "Padding after the last frame makes an output depend on frames that come later; the stream "
    "would need them before they arrive.",
    "pad on the left only: F.pad(x, (dilation * (kernel_size - 1), 0)) before a convolution "
    "without padding; or cut the surplus frames off the end; or keep the look-ahead of n frames: "
    "leave the right unpadded, crop what is added to it (skip[:, :, :-n]), and accept n frames of "
    "latency",
)
RESIZE = Rule(
    "S106",
    "resize in time",
    "Resize interpolates between frames across chunk borders, unless it repeats each frame a "
    "whole number of times.",
    'use mode="nearest" with a whole scale_factor (int8 only), or a ConvTranspose whose kernel '
    "equals its stride",
)
PAD_MODE = Rule(
    "S107",
    "padding in time that is not zero",
    "A streaming cache starts with zeros; reflected, repeated or constant frames before the first "
    "one cannot be reproduced.",
    "pad the frame axis with zeros",
)
FOLDED = Rule(
    "S108",
    "time folded into another axis",
    "A reshape or flatten merges the frame axis with an axis that varies more slowly, so the "
    "frames of a chunk are not contiguous, or all frames feed one output.",
    "keep the last frames with x[:, :, -n:] before flattening, or transpose time to the front",
)
ABSOLUTE = Rule(
    "S109",
    "absolute position in time",
    "The node picks or adds something at fixed frames of the offline sequence; a stream has no "
    "such positions.",
    "address frames from the end (x[:, :, -n:]), or drop the positional term; if x[:, :, :-n] "
    "trims padding, declare an input_shape of more than 2 * n frames",
)
ALONG_TIME = Rule(
    "S110",
    "concat, split or scatter along time",
    "Joining or cutting tensors along the frame axis depends on the length of the sequence.",
    "work along the channel axis; to pad, or for frames of the chunk before, use "
    "F.pad(x, (frames, 0)): a cache is put there",
)
REVERSED = Rule(
    "S111",
    "frames in reverse order",
    "A flip, or a reverse or bidirectional layer, starts at the last frame.",
    "use a forward layer, and leave the frames in their order",
)
UNKNOWN = Rule(
    "S112",
    "operator without streaming rules",
    "How this operator treats the frame axis is not known, so equality cannot be promised.",
    "replace it, such as nn.PixelShuffle by a ConvTranspose2d whose kernel equals its stride",
)
UNBOUNDED = Rule(
    "S113",
    "cold frames enter a recurrence",
    "Frames that differ at the start of a stream enter a recurrent state and never leave it.",
    "remove the latency or the warm-up before the recurrent layer",
)
UNRUNNABLE = Rule(
    "S114",
    "node that ESP-DL cannot run",
    "ESP-DL has no such operator, or its inputs, attributes or constants do not fit it: nothing is "
    "known of what comes out, offline or in a stream.",
    "write the model with the operators and attributes that docs/operators.md lists",
)
NOT_TIME = Rule(
    "S115",
    "frame_axis is not time",
    "A layer mixes what lies along the declared frame_axis as its channels or features.",
    "set frame_axis to the axis of input_shape that is time",
)
DATA_SHAPE = Rule(
    "S116",
    "shape that depends on the data",
    "How many elements come out depends on the values that go in; ESP-DL plans its memory for one "
    "shape.",
    "keep every element, and let those be zero that do not count: F.relu(x) instead of x[x > 0]",
)
LOOP = Rule(
    "S117",
    "frames taken one by one",
    "A loop over frames is traced as so many copies of its body, each for one fixed frame of the "
    "offline sequence.",
    "hand the whole sequence to nn.GRU or nn.LSTM, the recurrences that ESP-DL has: y, hn = gru(x, "
    'h[None]); it takes over the weights of a cell: gru.load_state_dict({f"{name}_l0": value for '
    "name, value in cell.state_dict().items()}); a loop that only smooths, y = a * y + (1 - a) * "
    "x, as nn.Conv1d over a fixed window",
)
PHASE = Rule(
    "S120",
    "stride phase",
    "The frames of a chunk are not a multiple of the total stride, so the phase slips from chunk "
    "to chunk.",
    "choose chunk_frames as a multiple of the total stride",
)
STATE_DROPPED = Rule(
    "S130",
    "recurrent state dropped",
    "Each run starts from zero unless the state is a graph input fed from a graph output.",
    "take the initial state as an input of forward, return the final state, and name both in "
    'StreamingModel.state, such as {"h0": "hn"}',
)
STATE_EXPONENT = Rule(
    "S131",
    "state exponents differ",
    "The state that goes out is fed back as it is; with another exponent on its way it is scaled, "
    "rounded or clipped at each chunk.",
    "calibrate with the states that the model itself leaves, and give each layer a state input and "
    "output of its own",
)

USE_PLAN = (
    "give the exporter's streaming conversion up for the planner's (streaming=\"plan\"), which "
    "places one cache per consumer"
)
MISSING_CACHE = Rule(
    "S201",
    "history missing",
    "A window over frames has neither padding nor a cache in front of it, so the first frames of "
    "each chunk are lost.",
    USE_PLAN,
)
SHARED_CACHE = Rule(
    "S202",
    "shared cache",
    "A tensor feeds a window over frames and something else; the exporter moved all its consumers "
    "behind one cache, so the other consumers see old frames again.",
    USE_PLAN,
)
WRONG_WINDOW = Rule(
    "S203",
    "wrong window",
    "The cache in front of this node holds another number of frames than its kernel and dilation "
    "need.",
    USE_PLAN,
)
WRONG_AXIS = Rule(
    "S204",
    "wrong frame axis",
    "The cache keeps slices along an axis that is not time.",
    USE_PLAN,
)
NOT_OUTERMOST = Rule(
    "S205",
    "frame axis not outermost",
    "A cache copies bytes flatly, which is a concat in time only where every axis before the frame "
    "axis has size 1.",
    "place the cache where time comes first, before or after a Transpose; the planner does",
)
PADDED_CHUNKS = Rule(
    "S206",
    "padding in every chunk",
    "Padding along time that stayed in the streaming file is applied to each chunk, where the "
    "offline model pads the whole sequence once.",
    USE_PLAN,
)
UPSAMPLING_GAP = Rule(
    "S207",
    "gap between upsampled chunks",
    "The last frame of a chunk is not followed by its zeros, so upsampled chunks are too short.",
    USE_PLAN,
)
OFFLINE_CONSTANT = Rule(
    "S208",
    "offline frame count in a constant",
    "The target shape of a Reshape, or the bounds of a Slice or Gather, still name frames of the "
    "offline sequence: the file does not load, or takes wrong frames.",
    "let the planner rewrite it, or write the model with -1 for the time axis",
)
UNEXPECTED_CACHE = Rule(
    "S209",
    "unexpected cache",
    "A cache stands where nothing needs history, for example a table entry that leaked from an "
    "earlier export.",
    "export each model in a fresh process, and check the streaming table for other models' names",
)
SKEWED = Rule(
    "S210",
    "branches out of step",
    "Tensors of different latency meet, or an output lags by another number of frames than it "
    "should.",
    "put a delay line (a cache and a Slice of the first frames) into the faster branch; the "
    "planner does",
)
WRONG_COUNT = Rule(
    "S211",
    "wrong number of frames",
    "A graph output has more or fewer frames per chunk than it should.",
    USE_PLAN,
)
COLD_HISTORY = Rule(
    "S212",
    "history computed from zeros",
    "Frames before the first one are computed by earlier layers from a zero cache, where the "
    "offline model pads with zeros: the first frames differ.",
    "place the cache directly in front of the window that needs it",
    Severity.WARNING,
)
REWIRED = Rule(
    "S213",
    "node not in the offline model",
    "The streaming file has or lacks a node that the offline file does not explain.",
    "export both files from the same calibrated graph",
)
TEST_VALUES = Rule(
    "S214",
    "embedded test values of another length",
    "The file embeds a test input of the whole sequence, but takes one chunk; the runtime's own "
    "test reads or compares beyond it.",
    "export streaming files without test values",
)
POOL_START = Rule(
    "S301",
    "maximum over a cold cache",
    "A MaxPool ignores its padding, but a cache holds zeros there: the first frames of the stream "
    "are max(0, offline).",
    "put a Relu before the pool, or pad with zeros explicitly: F.pad before an unpadded pool",
    Severity.WARNING,
)
POOL_COUNT = Rule(
    "S302",
    "average counts its padding",
    "count_include_pad=False is never read by the runtime, which always divides by the whole "
    "kernel: both files differ from the float model in the first frames, and equal each other.",
    "set count_include_pad=True",
    Severity.NOTE,
)
LATENCY = Rule(
    "S303",
    "latency",
    "An output lags: frames that have no offline counterpart come first.",
    "pad on the left, so that the first output needs only the first frame",
    Severity.NOTE,
)
WARMUP = Rule(
    "S304",
    "warm-up",
    "The first frames of an output may differ from the offline model, because a cache is zero "
    "where the offline model saw something else.",
    "use left padding of zeros directly in front of each window",
    Severity.WARNING,
)
CHIP_ROUNDING = Rule(
    "S305",
    "the chip rounds otherwise in a chunk",
    "By the size of a node the chip takes another kernel for a chunk than for the whole sequence, "
    "and the two round differently: the stimulus has elements in which the stream is not the "
    "offline run, though both files are right. Accepted, it is a note.",
    'take chunks that get the kernel of the whole, or declare chip_rounding="accept"',
)

BAKED_DATA = Rule(
    "S401",
    "value of the data kept as a constant",
    "Tracing runs forward once. What it turns into a Python number or branch, or hides in "
    "dropout or random numbers, stays as it was in that run, whatever comes later.",
    "compute it with tensors, of one frame each: x.mean(1, keepdim=True) instead of "
    "x.mean().item(), and torch.clamp instead of a condition",
)
BAKED_LENGTH = Rule(
    "S402",
    "length of the sequence kept as a constant",
    "Tracing keeps what forward computes from the length of its input, which is that of one "
    "chunk or one prefix in a stream.",
    "give a fixed number instead of x.shape[..] where values depend on it",
)
STILL_CHANNEL = Rule(
    "S403",
    "channel that never changes",
    "A channel of an output holds one value for the whole stimulus: that it streams right is not "
    "shown, and it may have been clipped away.",
    "give trained weights, and a stimulus and a calibration that let the channel move",
    Severity.NOTE,
)
OUT_OF_RANGE = Rule(
    "S404",
    "stimulus beyond the calibrated range",
    "Larger values than the calibration had are clipped at the input, where the float network "
    "takes them as they are.",
    "calibrate with sequences like the stimulus: give StreamingModel.calibration their level",
    Severity.NOTE,
)
NOT_SHOWN = Rule(
    "S405",
    "stimulus that does not show the state",
    "The outputs would be the same if nothing were carried from chunk to chunk: that they are "
    "right does not show that caches and states are.",
    "give a longer stimulus, whose chunks differ and whose values reach the layers with state; "
    "trained weights, where past frames count next to nothing",
    Severity.NOTE,
)

RULES: dict[str, Rule] = {
    rule.id: rule for rule in list(globals().values()) if isinstance(rule, Rule)
}


def finding_of(refusal: StreamingError) -> Finding:
    """The finding that a refusal is."""
    rule = RULES[refusal.rule]
    message = refusal.reason.removeprefix(f"{rule.title}: ")
    chunks = ", ".join(map(str, refusal.chunk_frames))
    found = find(rule, refusal.node, message, f"chunks of {chunks} frames" if chunks else "all")
    return replace(found, edit=refusal.hint or rule.edit)
