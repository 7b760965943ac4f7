"""What a newcomer reads: the right thing, in the model's own words, once for the whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rule_examples import model_text

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.model import load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.streaming.names import module_path

if TYPE_CHECKING:
    from pathlib import Path

CONV = "conv = nn.Conv1d(4, 8, 1)\n"
DIVERGED = 'self.conv.weight.data[0, 0, 0] = float("nan")\nself.conv.bias.data[2] = float("inf")\n'
BLOCKS = (
    "stem = nn.Conv1d(4, 8, 1)\n"
    "blocks = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh(), nn.Conv1d(8, 8, 3, padding=PAD)))\n"
    "return blocks(stem(x))[:, :, :24]"
)
# The model, then texts of the refusal in this order; None: it streams.
WORDS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "group_norm": (
        CONV + "norm = nn.GroupNorm(2, 8)\nreturn norm(conv(x))",
        (
            "[S102] norm (GroupNormalization): ",
            "hint: normalize over the channels",
            "nn.BatchNorm1d",
        ),
    ),
    "instance_norm": (
        CONV + "norm = nn.InstanceNorm1d(8)\nreturn norm(conv(x))",
        ("[S102] norm (InstanceNormalization): ",),
    ),
    "batch_norm": (CONV + "norm = nn.BatchNorm1d(8)\nreturn norm(conv(x))", None),
    "look_ahead": (
        "conv = nn.Conv1d(4, 8, 4)\nreturn conv(F.pad(x, (0, 3)))",
        ("[S105] conv (Conv): ", "leave the right unpadded", "accept n frames of latency"),
    ),
    "latency": ("conv = nn.Conv1d(4, 8, 4)\nreturn conv(x)", None),
    "same": (
        'conv = nn.Conv1d(4, 8, 4, padding="same")\nreturn conv(x)',
        ("[S105] conv (Conv): ", "the last 2 frame(s) of output depend on padding"),
    ),
    "same_of_one": ('conv = nn.Conv1d(4, 8, 1, padding="same")\nreturn conv(x)', None),
    "erf": (
        CONV + "return F.gelu(conv(x))",
        ("[S114] forward (Erf): ", 'use nn.GELU(approximate="tanh")'),
    ),
    "cut_in_half": (
        CONV + "return conv(x)[:, :, :-12]",
        ("[S109] ", "keeps frames 0 to 11 of 24, half of them or less", "more than 2 * n frames"),
    ),
    "channels": (
        CONV + "return conv(x.transpose(1, 2))\n"
        "StreamingModel(input_shape=(1, 24, 4), frame_axis=2, chunk_frames=(2,))",
        ("[S115] conv (Conv): ", "did you mean frame_axis=1?"),
    ),
    "features": (
        "a = nn.Linear(4, 8)\nb = nn.Linear(8, 8)\nreturn b(torch.relu(a(x)))\n"
        "StreamingModel(input_shape=(1, 24, 4), frame_axis=2, chunk_frames=(2,))",
        ("did you mean frame_axis=1?",),
    ),
    "own_layout": (
        CONV + "return conv(x) * conv(x).mean(2, keepdim=True)",
        ("[S101] forward (ReduceMean): ", "it reduces axes [2], 2 is time"),
    ),
    "data_shape": (
        CONV + "y = conv(x)\nreturn y[y > 0]",
        ("[S116] forward (NonZero): ", "F.relu(x) instead of x[x > 0]"),
    ),
    "no_operator": (
        CONV + "return torch.cumsum(conv(x), 2)",
        ("[S114] forward (CumSum): ", "ESP-DL has no operator CumSum"),
    ),
    "module_path": (BLOCKS.replace("PAD", "1"), ("[S105] blocks.1.1 (Conv): ",)),
    "module_path_fine": (BLOCKS.replace("PAD", "2"), None),
    "identity": ("layer = nn.Identity()\nreturn layer(x)", ("there is nothing to quantize",)),
    "large": (
        "wide = nn.Linear(24, 4500)\nmiddle = nn.Linear(4500, 4500)\n"
        "return middle(wide(x))\nStreamingModel(input_shape=(1, 4, 24), frame_axis=1)",
        (
            "take 19.4 MiB at int8, the largest esp32s3 module has 16 MiB",
            "(middle alone takes 19.3 MiB)",
        ),
    ),
    "other_float": (
        "conv = nn.Conv1d(4, 8, 1).double()\nreturn conv(x)",
        ("other_float.py:", "conv.weight is float64", "return network.float()"),
    ),
    "no_number": (
        CONV + "return torch.log(conv(x))",
        ("output 'output' of the float network holds NaN or inf", "first at no_number.py:"),
    ),
    "training": (
        CONV + "norm = nn.BatchNorm1d(8)\nnorm.train()\nreturn norm(conv(x))",
        ("forward puts norm into training mode", "leave .train() to the training script"),
    ),
    "no_statistics": (
        CONV + "norm = nn.BatchNorm1d(8, track_running_stats=False)\nreturn norm(conv(x))",
        ("[S102] norm: ", "it keeps no running statistics"),
    ),
    "lazy": (
        "conv = nn.LazyConv1d(8, 1)\nreturn conv(x)",
        ("parameters without a shape: conv.weight, conv.bias",),
    ),
    "elsewhere": (
        'conv = nn.Conv1d(4, 8, 1, device="meta")\nreturn conv(x)',
        ("not on the CPU: conv.weight on meta; conv.bias on meta",),
    ),
    "attribute": (
        CONV + 'self.past = x + getattr(self, "past", 0)\nreturn conv(self.past)',
        ("it changes self.past", "take what self.past holds as an input", "{'past': 'past_out'}"),
    ),
    "raised": (CONV + "return conv(x).nothing()", ("AttributeError: ", "(at raised.py:")),
    "again": (
        CONV + 'y = conv(x)\nreturn y, y\nStreamingModel(outputs=("a", "b"))',
        ("output 'b' is nothing but 'a' again", "return each tensor once"),
    ),
    "constant": (
        CONV + "return torch.from_numpy(conv(x).detach().numpy()) + 1",
        ("no output depends on input 'input'", "through NumPy"),
    ),
    "not_exported": (
        "return torch.stft(x[:, 0], 8, return_complex=True).abs()",
        ("[S114] not_exported.py:", "STFT does not currently", "the cosines and sines"),
    ),
    "written_out": (
        "conv = nn.Conv1d(5, 8, 1)\nreturn conv(torch.cat([x, torch.ones_like(x[:, :1])], 1))",
        ("[S109] ", "a constant has 24 values along time", "a constant channel is its bias"),
    ),
    "frames_in_batch": (
        "gru = nn.GRU(1, 4, batch_first=True)\n"
        "return gru(x.transpose(1, 2).reshape(-1, 4, 1))[0].flatten(1)",
        ("[S114] gru (GRU): ", "frames lie along its batch axis", "nn.Linear or a convolution"),
    ),
    "normalized": (  # whose Expand is no fault
        "conv = nn.Conv1d(4, 8, 3, padding=1)\nreturn F.normalize(conv(x), dim=1)",
        ("[S105] conv (Conv): ",),
    ),
    "still": (
        CONV + "return F.normalize(conv(0 * x + 1), dim=1)",
        ("output 'output' of the quantized network never changes",),
    ),
    "flipped": (CONV + "return conv(x.flip(2))", ("[S111] ", "from the last to the first")),
    "flipped_channels": (CONV + "return conv(x.flip(1))", None),
    "one_frame": (
        "linear = nn.Linear(4, 8)\nreturn linear(x)\n"
        "StreamingModel(input_shape=(1, 1, 4), frame_axis=1, chunk_frames=(1,))",
        ("[S108] ", "hint: input 'input' has one frame on axis 1: declare the whole sequence"),
    ),
    "frames": (
        "linear = nn.Linear(4, 8)\nreturn linear(x)\n"
        "StreamingModel(input_shape=(1, 4, 4), frame_axis=1, chunk_frames=(1,))",
        None,
    ),
    "behind_one_another": (
        "conv = nn.Conv1d(4, 4, 3, padding=1)\n"
        'return torch.softmax(F.pad(conv(x), (2, 0), mode="reflect"), 2)[:, :, 2:]',
        ("[S107] forward (Pad): ", "[S102] forward (Softmax): ", "[S105] conv (Conv): "),
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("words")
    recipes = {name: _recipe(folder, name, model_text(WORDS[name][0], name)) for name in WORDS}
    diverged = model_text(CONV + "return conv(x)", "diverged")
    edited = "".join(f"            {line}\n" for line in DIVERGED.splitlines())
    recipes["diverged"] = _recipe(
        folder,
        "diverged",
        diverged.replace("\n        def forward", f"{edited}\n        def forward"),
    )
    made = model_text("conv = nn.Conv1d(4, 8)\nreturn conv(x)", "raises")
    recipes["raises"] = _recipe(folder, "raises", made)
    found = prepare(list(recipes.values()), Store(folder / "store"), jobs=2)
    return {name: found[recipe.key] for name, recipe in recipes.items()}


def _recipe(folder: Path, name: str, text: str) -> Recipe:
    path = folder / f"{name}.py"
    path.write_text(text)
    return Recipe.of(load_model(path), "esp32s3", 8)


@pytest.mark.parametrize("name", [name for name, (_, texts) in WORDS.items() if texts])
def test_a_refusal_says_what_and_what_to_do(results: dict[str, Any], name: str) -> None:
    error = results[name]
    assert isinstance(error, HarnessError), error
    said, rest = str(error), str(error)
    for text in WORDS[name][1] or ():
        assert text in rest, said
        rest = rest.partition(text)[2]
    assert "PPQ_" not in said
    assert "hint: " in said


@pytest.mark.parametrize("name", [name for name, (_, texts) in WORDS.items() if texts is None])
def test_its_twin_streams(results: dict[str, Any], name: str) -> None:
    assert isinstance(results[name], Artifacts), results[name]


def test_weights_that_are_no_numbers_are_named(results: dict[str, Any]) -> None:
    error = results["diverged"]
    assert isinstance(error, QuantizeError)
    assert "conv.weight (8, 4, 1) holds 1 NaN; conv.bias (8,) holds 1 inf" in str(error)


def test_a_build_that_raises_is_named_with_file_and_line(results: dict[str, Any]) -> None:
    error = results["raises"]
    assert isinstance(error, QuantizeError)
    lines = model_text("conv = nn.Conv1d(4, 8)\nreturn conv(x)", "raises").splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "self.conv = " in line)
    assert "build() raised TypeError: Conv1d.__init__() missing 1 required" in error.message
    assert f"raises.py:{number})" in error.message


def test_a_shape_of_the_data_is_one_fault_by_rule(results: dict[str, Any]) -> None:
    assert [fault.rule for fault in results["data_shape"].every] == ["S116"]


def test_what_the_exporter_puts_together_is_no_fault(results: dict[str, Any]) -> None:
    assert [fault.rule for fault in results["normalized"].every] == ["S105"]


def test_several_faults_are_one_error_each_with_its_edit(results: dict[str, Any]) -> None:
    error = results["behind_one_another"]
    assert isinstance(error, StreamingError)
    assert len(error.every) == len({fault.rule for fault in error.every}) == 3
    assert str(error).count("hint: ") == 3
    assert all(not fault.others for fault in error.every)


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/blocks.0/body/body.3/conv/Conv", "blocks.0.body.3.conv (Conv)"),
        ("/head/head.1/Conv", "head.1 (Conv)"),
        ("/0/Conv", "0 (Conv)"),
        ("/Add_1", "forward (Add_1)"),
        ("model.py:7", "model.py:7"),
    ],
)
def test_module_paths(node: str, path: str) -> None:
    assert module_path(node) == path
