"""Recipes through real workers: what comes out, and what every way of failing looks like."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_models import COUNTED, GOOD, write

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.model import StreamingModel, load_model
from espdl_hil.quantize import Artifacts, Meaning, Recipe, Store, prepare
from espdl_hil.streaming import from_espdl, lint
from espdl_hil.streaming.names import with_user_names


def with_pass(*lines: str) -> str:
    """The good model, converted by a pass of these statements."""
    body = "".join(f"    {line}\n" for line in lines)
    given = (
        "def given(graph):\n"
        "    from esp_ppq.log import NaiveLogger\n"
        f"    log = NaiveLogger.get_logger('ESPDL')\n{body}\n"
    )
    return given + GOOD.replace("declare(build)", "declare(build, streaming=given)")


BAD = {
    "raises": "MODEL = declare(lambda: 1 / 0)",
    "no_module": "MODEL = declare(lambda: 3)",
    "wrong_shape": GOOD.replace("nn.Conv1d(4, 4, 1)", "nn.Conv1d(5, 4, 1)"),
    "two_outputs": GOOD.replace("return x + ", "return x, "),
    "unused_input": GOOD.replace("def forward(self, x)", "def forward(self, x, y)")
    .replace("nn.Sequential(nn.Conv1d(4, 4, 1), Network())", "Network()")
    .replace(
        "declare(build)",
        "declare(build, input_shape={'x': (1, 4, 12), 'y': (1, 4, 12)},"
        " frame_axis={'x': 2, 'y': 2})",
    ),
    "stimulus": GOOD.replace("declare(build)", "declare(build, stimulus=lambda random: [1])"),
    "exits": "MODEL = declare(lambda: os._exit(7))",
    "crashes": "MODEL = declare(lambda: os.kill(os.getpid(), signal.SIGSEGV))",
    "hangs": "MODEL = declare(lambda: signal.pause())",
    "cannot_stream": GOOD.replace("(2, 0)", "(1, 1)"),
    "cold_gru": """
def build():
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(4, 4, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    return Network()

MODEL = declare(build, input_shape=(1, 12, 4), frame_axis=1)
""",
    "attention": """
def build():
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            y = self.linear(x)
            return (y @ y.transpose(1, 2) / 3).softmax(-1) @ y

    return Network()

MODEL = declare(build, input_shape=(1, 12, 4), frame_axis=1)
""",
    "positional": GOOD.replace("return x + ", "return torch.arange(12.0) + x + "),
    "chosen": GOOD.replace("return x + ", "return torch.where(x > 0, x, 0) + "),
    "cumsum": GOOD.replace("self.conv(F.pad(x, (2, 0)))", "torch.cumsum(x, 2)"),
    "pass_raises": with_pass("log.warning('something odd')", "{}['no such entry']"),
    "pass_logs": with_pass("log.error('something bad')"),
    "table": GOOD.replace(
        "declare(build)",
        "declare(build, chunk_frames=(3,), streaming=[{'nowhere': {'window_size': 1}}])",
    ),
    "pass_rescales": with_pass(
        "from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo",
        "exponents = ExporterPatternInfo().var_exponents",
        "exponents['input'] = [exponents['input'][0] + 1]",
    ),
}
GLU = GOOD.replace("nn.Conv1d(4, 4, 3)", "nn.Conv1d(4, 8, 3)").replace(
    "x + self.conv(F.pad(x, (2, 0)))", "F.glu(self.conv(F.pad(x, (2, 0))), 1)"
)
SCALED = GOOD.replace(
    "return x + self.conv(F.pad(x, (2, 0)))",
    """y = self.conv(F.pad(x, (2, 0))) + torch.tensor([[[1.0], [2], [-1], [-2]]])
            return F.silu(y) * torch.tensor([[1.0], [0.5], [2], [-1]]) + x""",
)
HELPED = """
def build():
    import numpy, torch
    from _layers import KERNEL
    module = torch.nn.Conv1d(4, 4, KERNEL)
    weights = numpy.load(os.path.join(os.path.dirname(__file__), "weights.npy"))
    module.weight.data = torch.from_numpy(weights)
    return module

MODEL = declare(build)
"""
TIMEOUT_S = 6.0


def documented(folder: Path) -> StreamingModel:
    """The first example of the documentation, as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    path = folder / "documented.py"
    path.write_text(text.partition("```python\n")[2].partition("```")[0])
    return load_model(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    return write(tmp_path_factory.mktemp("good"), "good", GOOD)


@pytest.fixture(scope="module")
def good_recipes(good: StreamingModel) -> list[Recipe]:
    return [Recipe.of(good, target, bits) for target in ("esp32s3", "esp32p4") for bits in (8, 16)]


@pytest.fixture(scope="module")
def automatic(good: StreamingModel) -> Recipe:
    """The same model through the exporter's own conversion."""
    model = dataclasses.replace(good, name="automatic", streaming="auto", chunk_frames=(3,))
    return Recipe.of(model, "esp32s3", 8)


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A model whose ``build`` imports a helper and reads its weights from a file."""
    folder = tmp_path_factory.mktemp("helped")
    (folder / "_layers.py").write_text("KERNEL = 1\n")
    np.save(folder / "weights.npy", np.ones((4, 4, 1), np.float32))
    return Recipe.of(write(folder, "helped", HELPED), "esp32s3", 8)


BATCH_NORM = GOOD.replace(
    "nn.Sequential(nn.Conv1d(4, 4, 1), Network())", "nn.Sequential(norm, Network())"
).replace(
    "    return nn",
    """
    norm = nn.BatchNorm1d(4)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(norm.running_mean)
    nn.init.normal_(norm.bias)
    return nn""",
)


@pytest.fixture(scope="module")
def batch_norm(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A model that begins with a 1-D batch norm, with statistics that are not the defaults."""
    return Recipe.of(write(tmp_path_factory.mktemp("norm"), "batch_norm", BATCH_NORM), "esp32s3", 8)


@pytest.fixture(scope="module")
def glu(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A model whose Split is written with a number of parts."""
    return Recipe.of(write(tmp_path_factory.mktemp("glu"), "glu", GLU), "esp32s3", 8)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A model with a bias and a scale a channel, both of them constants of ``forward``."""
    return Recipe.of(write(tmp_path_factory.mktemp("scaled"), "scaled", SCALED), "esp32s3", 8)


@pytest.fixture(scope="module")
def results(
    store: Store,
    good_recipes: list[Recipe],
    automatic: Recipe,
    helped: Recipe,
    batch_norm: Recipe,
    glu: Recipe,
    scaled: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Artifacts | HarnessError]:
    """One run of everything, good and bad side by side, by label."""
    folder = tmp_path_factory.mktemp("bad")
    bad = [Recipe.of(write(folder, name, text), "esp32s3", 8) for name, text in BAD.items()]
    example = Recipe.of(documented(folder), "esp32s3", 8)
    recipes = [*bad, *good_recipes, automatic, helped, batch_norm, glu, scaled, example]
    labels: list[tuple[int, int, str]] = []
    found = prepare(
        recipes, store, jobs=2, timeout_s=TIMEOUT_S, progress=lambda *state: labels.append(state)
    )
    assert [done for done, _, _ in labels] == list(range(1, len(recipes) + 1))
    assert {label for _, _, label in labels} == {recipe.label for recipe in recipes}
    return {recipe.label: found[recipe.key] for recipe in recipes}


def artifacts(results: dict[str, Any], label: str) -> Artifacts:
    result = results[label]
    assert isinstance(result, Artifacts), result
    return result


GOOD_LABELS = [f"good int{bits} {t}" for t in ("esp32s3", "esp32p4") for bits in (8, 16)]


@pytest.mark.parametrize("label", GOOD_LABELS)
def test_files_plans_and_arrays_belong_together(results: dict[str, Any], label: str) -> None:
    made = artifacts(results, label)
    dtype = np.dtype("int16" if "int16" in label else "int8")
    offline = load_graph(made.offline)
    assert [info.name for info in (*offline.inputs, *offline.outputs)] == ["input", "output"]
    assert made.stimulus["input"].shape == (1, 4, 12)
    assert made.stimulus["input"].dtype == np.float32
    for arrays, name in ((made.inputs_q, "input"), (made.reference, "output")):
        assert arrays[name].dtype == dtype
        assert arrays[name].shape == offline.info(name).shape == (1, 12, 4)
        assert len(np.unique(arrays[name])) > 10
    assert set(made.streaming) == set(made.plans) == {3, 12}
    for chunk, path in made.streaming.items():
        streaming = load_graph(path)
        assert streaming.info("input").shape == (1, chunk, 4)
        caches = [node for node in streaming.nodes if node.op_type == "StreamingCache"]
        assert len(caches) == len(made.plans[chunk].caches) == 1
        assert made.plans[chunk].chunk_frames == {"input": chunk}


@pytest.mark.parametrize("label", GOOD_LABELS)
def test_inputs_and_reference_lie_on_the_files_grid(results: dict[str, Any], label: str) -> None:
    made = artifacts(results, label)
    offline = load_graph(made.offline)
    real = np.moveaxis(made.stimulus["input"], 1, 2)
    step = 2.0 ** offline.info("input").exponent
    limit = np.iinfo(made.inputs_q["input"].dtype)
    inside = (real > limit.min * step) & (real < limit.max * step)
    assert inside.mean() > 0.9
    assert np.abs(made.inputs_q["input"] * step - real)[inside].max() <= step / 2
    reference = made.reference["output"] * 2.0 ** offline.info("output").exponent
    wanted = made.float_outputs["output"]
    error = np.square(reference - wanted).sum() / np.square(wanted).sum()
    assert error < 0.01


def test_meta_says_what_was_made_of_what(results: dict[str, Any]) -> None:
    made = artifacts(results, "good int8 esp32s3")
    assert made.meta["recipe"]["name"] == "good"
    assert set(made.meta["seconds"]) == {"build", "calibrate", "export", "check"}
    assert len(made.meta["weights_sha256"]) == 64
    other = artifacts(results, "good int8 esp32p4")
    assert other.meta["weights_sha256"] == made.meta["weights_sha256"]
    assert other.meta["files"]["offline.espdl"] != made.meta["files"]["offline.espdl"]
    assert [line for line in made.log if line.meaning is Meaning.FATAL] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "quantize (build): build() raised ZeroDivisionError: division by zero"),
        ("no_module", "quantize (build): build() returned a int, expected a torch.nn.Module"),
        ("wrong_shape", "quantize (build): forward(input (1, 4, 12)) raised RuntimeError: Given "),
        ("two_outputs", "quantize (build): forward(input (1, 4, 12)) returned 2 value(s) of type "),
        ("unused_input", "quantize (build): no output depends on input 'y'"),
        ("stimulus", "quantize (build): stimulus of model 'stimulus' gave shape (1,) for input"),
        ("exits", "quantize (build): the worker ended with status 7 and no result"),
        ("crashes", "quantize (build): the worker was killed by SIGSEGV"),
        ("hangs", f"quantize (build): the worker took longer than {TIMEOUT_S:g} s"),
        ("pass_raises", "quantize (export): KeyError: 'no such entry' (at "),
        ("table", "quantize (export): "),
        ("pass_logs", "quantize (export): the exporter logged an error and went on: something bad"),
        ("pass_rescales", "quantize (check): the streaming file for chunks of 3 frames is not"),
    ],
)
def test_each_failure_is_one_typed_message(
    results: dict[str, Any], name: str, message: str
) -> None:
    error = results[f"{name} int8 esp32s3"]
    assert isinstance(error, QuantizeError)
    assert str(error).startswith(message)
    assert "Traceback" not in str(error)


def test_what_esp_dl_cannot_run_is_said_before_anything_is_flashed(results: dict[str, Any]) -> None:
    error = results["chosen int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert error.message == (
        "[S114] 1 (Where): node that ESP-DL cannot run: ESP-DL has no operator Where"
    )
    assert str(error.hint).startswith("choose by arithmetic: F.relu(x - t) ")
    assert error.others == []


def test_an_operator_that_esp_dl_lacks_is_named_as_the_reason(results: dict[str, Any]) -> None:
    error = results["cumsum int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert (error.rule, error.node) == ("S114", "1 (CumSum)")
    assert "ESP-DL has no operator CumSum" in error.message
    assert str(error.hint).startswith("take a window of fixed length, ")
    assert "ESP-DL has no operator" not in str(results["pass_raises int8 esp32s3"].hint)


def test_an_exporters_failure_leaves_its_log(results: dict[str, Any]) -> None:
    hint = results["pass_raises int8 esp32s3"].hint
    log = Path(hint.rpartition("the exporter's log is ")[2]).read_text()
    assert "Traceback" in log
    assert "--- stage export" in log


def test_what_the_exporter_warned_of_before_it_failed_is_in_the_hint(
    results: dict[str, Any],
) -> None:
    hint = results["pass_raises int8 esp32s3"].hint
    assert "before that the exporter logged: something odd" in hint


@pytest.mark.parametrize(
    ("name", "rules", "node"),
    [
        ("cannot_stream", {"S105"}, "Conv"),
        ("cold_gru", {"S130"}, "gru (GRU)"),  # esp-ppq: IndexError
        ("attention", {"S104", "S112"}, ""),  # the ONNX optimizer: failed assertion
    ],
)
def test_a_network_that_cannot_stream_is_refused_by_rule(
    results: dict[str, Any], name: str, rules: set[str], node: str
) -> None:
    error = results[f"{name} int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert error.rule in rules
    assert node in error.node
    assert error.hint


def test_the_exporters_own_conversion_is_given_as_it_is(
    automatic: Recipe, results: dict[str, Any]
) -> None:
    made, planned = artifacts(results, automatic.label), artifacts(results, "good int8 esp32s3")
    assert made.offline.read_bytes() == planned.offline.read_bytes()
    graphs = [load_graph(result.streaming[3]) for result in (made, planned)]
    cached = [
        {node.outputs[0] for node in g.nodes if node.op_type == "StreamingCache"} for g in graphs
    ]
    for graph, behind in zip(graphs, cached, strict=True):  # and where the step changes
        moved = [node for node in graph.nodes if node.op_type == "RequantizeLinear"]
        behind |= {out for node in moved if {*node.inputs} & behind for out in node.outputs}
    (own, ours) = [next(node for node in graph.nodes if node.op_type == "Add") for graph in graphs]
    assert set(own.inputs) & cached[0]  # the residual is moved behind the cache: its known defect
    assert not set(ours.inputs) & cached[1]
    assert made.plans[3] == planned.plans[3]  # what is to be expected of either
    assert made.lint[3][0].rule == "S202"
    assert planned.lint == {3: [], 12: []}
    for result in (made, planned):  # the same as from the two files alone
        streaming = load_graph(result.streaming[3])
        found = lint(streaming, load_graph(result.offline))
        assert result.lint[3] == with_user_names(found, from_espdl(streaming))


def test_a_batch_norm_without_a_convolution_becomes_one(
    results: dict[str, Any], batch_norm: Recipe
) -> None:
    made = artifacts(results, batch_norm.label)
    offline = load_graph(made.offline)
    assert (offline.nodes[0].op_type, offline.nodes[0].attributes["group"]) == ("Conv", 4)
    step = 2.0 ** offline.info("output").exponent
    error = np.abs(made.reference["output"] * step - made.float_outputs["output"])
    assert np.median(error) < step  # a few elements saturate


def test_a_split_in_equal_parts_gets_their_lengths(results: dict[str, Any], glu: Recipe) -> None:
    offline = load_graph(artifacts(results, glu.label).offline)
    (split,) = [node for node in offline.nodes if node.op_type == "Split"]
    assert offline.initializers[split.inputs[1]].raw.tobytes() == bytes(np.array([4, 4], np.int64))


def test_constants_a_channel_follow_the_channels(results: dict[str, Any], scaled: Recipe) -> None:
    made = artifacts(results, scaled.label)
    offline = load_graph(made.offline)
    (scale,) = [node for node in offline.nodes if node.op_type == "Mul"]
    shapes = [offline.initializers[n].info.shape for n in scale.inputs if n in offline.initializers]
    assert shapes == [(1, 1, 4)]
    assert sum(node.op_type == "Add" for node in offline.nodes) == 1  # the other is the bias
    reference = made.reference["output"] * 2.0 ** offline.info("output").exponent
    wanted = made.float_outputs["output"]
    assert np.square(reference - wanted).sum() / np.square(wanted).sum() < 0.01


def test_constants_a_frame_are_refused_with_their_number(results: dict[str, Any]) -> None:
    error = results["positional int8 esp32s3"]
    assert isinstance(error, StreamingError)
    assert error.rule == "S109"
    assert "12 values along time, one per offline frame" in error.message


def test_the_documented_example_works(results: dict[str, Any]) -> None:
    made = artifacts(results, "mine int8 esp32s3")
    assert {chunk: len(plan.caches) for chunk, plan in made.plans.items()} == {2: 1, 6: 1}


def test_nothing_starts_when_the_store_has_everything(
    store: Store,
    good_recipes: list[Recipe],
    results: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    found = prepare(good_recipes, Store(store.root))
    assert all(isinstance(result, Artifacts) for result in found.values())


def test_a_corrupted_entry_is_reported_and_made_again_the_same(
    store: Store, good_recipes: list[Recipe], results: dict[str, Any]
) -> None:
    recipe = good_recipes[0]
    before = artifacts(results, recipe.label)
    wanted = {path.name: path.read_bytes() for path in before.directory.glob("*.espdl")}
    before.offline.write_bytes(b"EDL2" + bytes(100))
    mine = Store(store.root)
    made = prepare([recipe], mine)[recipe.key]
    assert isinstance(made, Artifacts)
    assert len(mine.discarded) == 1
    assert "offline.espdl does not have the hash" in mine.discarded[0]
    assert {path.name: path.read_bytes() for path in made.directory.glob("*.espdl")} == wanted


def test_helpers_and_weights_that_build_reads_are_part_of_the_content(
    store: Store, helped: Recipe, results: dict[str, Any]
) -> None:
    first = artifacts(results, helped.label)
    folder = helped.source.parent
    weights = folder / "weights.npy"
    before = weights.read_bytes()
    np.save(weights, np.load(weights) / 2)
    assert store.get(helped) is None
    second = prepare([helped], store)[helped.key]
    assert isinstance(second, Artifacts)
    assert second.meta["weights_sha256"] != first.meta["weights_sha256"]
    weights.write_bytes(before)
    again = store.get(helped)
    assert again is not None
    assert again == first.directory
    (folder / "_layers.py").write_text("KERNEL = 1  # edited\n")
    assert store.get(helped) is None
    assert store.discarded == []


def test_what_c_plus_plus_and_a_pass_read_is_part_of_the_content(
    store: Store, tmp_path: Path
) -> None:
    here = "os.path.join(os.path.dirname(__file__), {!r})".format
    text = with_pass(f"open({here('table.txt')}).close()").replace(
        "    from torch import nn",
        "    from torch import nn\n"
        f"    try: torch.jit.load({here('scripted.pt')})\n"  # opened by no Python
        "    except RuntimeError: pass",
    )
    for name in ("table.txt", "scripted.pt", "other.txt"):
        (tmp_path / name).write_text("one")
    recipe = Recipe.of(write(tmp_path, "reader", text), "esp32s3", 8)
    assert_made(recipe, store)
    (tmp_path / "other.txt").write_text("two")
    assert store.get(recipe) is not None
    for name in ("table.txt", "scripted.pt"):
        (tmp_path / name).write_text("two")
        assert store.get(recipe) is None
        (tmp_path / name).write_text("one")
        assert store.get(recipe) is not None


@pytest.mark.parametrize("written", ["weights.txt", "other.txt"])
def test_what_is_written_again_while_it_is_exported_counts_as_it_was_read(
    store: Store, tmp_path: Path, written: str
) -> None:
    name = written.partition(".")[0]
    text = GOOD.replace(
        "def build():", f"def build():\n    open({str(tmp_path / 'weights.txt')!r}).close()"
    )
    tracing = f"if torch.jit.is_tracing(): open({str(tmp_path / written)!r}, 'w').write('two')"
    text = text.replace("            return x +", f"            {tracing}\n            return x +")
    (tmp_path / "weights.txt").write_text("one")
    recipe = Recipe.of(write(tmp_path, name, text), "esp32s3", 8)
    assert_made(recipe, store)
    assert (tmp_path / written).read_text() == "two"
    assert (store.get(recipe) is None) == (written == "weights.txt")


def test_a_model_file_that_is_edited_meanwhile_is_not_kept(store: Store, tmp_path: Path) -> None:
    edits = "def build():\n    open(__file__, 'a').write('# edited')"
    recipe = Recipe.of(write(tmp_path, "edited", GOOD.replace("def build():", edits)), "esp32s3", 8)
    error = prepare([recipe], store)[recipe.key]
    assert str(error) == (
        f"quantize (build): {recipe.source} has been changed while it was being quantized\n"
        "  hint: run it again"
    )
    assert store.get(recipe) is None


def test_a_model_is_traced_once_for_all_targets_widths_and_later_runs(tmp_path: Path) -> None:
    model = write(tmp_path, "counted", COUNTED)
    recipes = [Recipe.of(model, target, bits) for target in model.targets for bits in model.bits]
    found = prepare(recipes, Store(tmp_path / "store"), jobs=2)
    assert [type(result) for result in found.values()] == [Artifacts] * 4
    later = dataclasses.replace(model, chunk_frames=(4,))
    assert_made(Recipe.of(later, "esp32s3", 8), Store(tmp_path / "store"))
    assert (tmp_path / "made.txt").read_text() == "x"
    assert_made(
        Recipe.of(dataclasses.replace(model, seed=1), "esp32s3", 8), Store(tmp_path / "store")
    )
    assert (tmp_path / "made.txt").read_text() == "xx"


def assert_made(recipe: Recipe, store: Store) -> None:
    result = prepare([recipe], store)[recipe.key]
    assert isinstance(result, Artifacts), result


def test_a_damaged_trace_is_reported_and_made_again(tmp_path: Path) -> None:
    model = write(tmp_path, "counted", COUNTED)
    first, second = (Recipe.of(model, "esp32s3", bits) for bits in (8, 16))
    assert_made(first, Store(tmp_path / "store"))
    trace = Store(tmp_path / "store").get(first.trace)
    assert trace is not None
    (trace / "float.onnx").write_bytes(b"")
    store = Store(tmp_path / "store")
    assert_made(second, store)
    assert (tmp_path / "made.txt").read_text() == "xx"
    (message,) = store.discarded
    assert message.startswith(
        "stored artifact of counted float discarded and made anew: float.onnx"
    )


def test_a_trace_that_fails_is_the_error_of_all_its_recipes(tmp_path: Path) -> None:
    text = COUNTED.replace("    count()\n", "    count()\n    1 / 0\n")
    model = write(tmp_path, "failing", text)
    recipes = [Recipe.of(model, "esp32s3", bits) for bits in (8, 16)]
    found = prepare(recipes, Store(tmp_path / "store"))
    assert model.source is not None
    lines = model.source.read_text().splitlines()
    line = f"{model.source}:{lines.index('    1 / 0') + 1}"
    assert [str(error).partition("\n")[0] for error in found.values()] == [
        f"quantize (build): build() raised ZeroDivisionError: division by zero (at {line})"
    ] * 2
    assert (tmp_path / "made.txt").read_text() == "x"
