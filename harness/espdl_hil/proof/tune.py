"""The search for quantization settings that keep more of a model. Knows tries, prints nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import HarnessError
from espdl_hil.model.quantization import ALGORITHMS, MAX_BATCHES
from espdl_hil.operators import check_graph
from espdl_hil.operators.sizes import node_macs
from espdl_hil.proof.accuracy import measure
from espdl_hil.proof.case import Case
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Recipe, one_scheduler, prepare
from espdl_hil.quantize.layers import fits
from espdl_hil.streaming import Severity
from espdl_hil.streaming.names import module_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from espdl_hil.espdl import Graph
    from espdl_hil.model import Quantization, StreamingModel
    from espdl_hil.model.quantization import Algorithm
    from espdl_hil.quantize import Artifacts, Store

    Progress = Callable[[int, str], None]  # tries done, what is being tried

NARROW, WIDE = 8, 16
# A vector register of 128 bits holds 16 numbers of 8 bits or 8 of 16 bits.
MACS_OF_WIDE = 2
WEIGHTED = ("Conv", "Gemm", "GRU", "LSTM", "MatMul")
MIN_GAIN_DB = 0.1
LAYERS_AT_ONCE = (1, 2, 4, 8)
MORE_BATCHES = 4  # times


@dataclass(frozen=True)
class Try:
    """One set of settings, and what came of it.

    Attributes:
        quantization: The settings.
        sqnr_db: By output, the offline file in the interpreter against the float network; empty
            when it was refused.
        macs: Of one chunk; a multiply-accumulate of 16 bits counts as two.
        file_bytes: Size of the streaming file.
        state_bytes: What it keeps between chunks.
        refused: Why there is no file.
        lost_db: What each layer of 8 bits loses, by what ``layer_bits`` calls it, most first, the
            cheap ones before the others.
        macs_of: Multiply-accumulates of these, as they are counted.
        saturates: A sum leaves the ESP32-S3's lanes.
    """

    quantization: Quantization
    sqnr_db: Mapping[str, float] = field(default_factory=dict)
    macs: int = 0
    file_bytes: int = 0
    state_bytes: int = 0
    refused: str = ""
    lost_db: Mapping[str, float] = field(default_factory=dict)
    macs_of: Mapping[str, int] = field(default_factory=dict)
    saturates: bool = False

    @property
    def worst_db(self) -> float:
        """The least of its outputs."""
        return min(self.sqnr_db.values(), default=float("-inf"))

    def to_json(self) -> dict[str, Any]:
        """Return what is shown of it as plain data."""
        return {
            "quantization": self.quantization.to_json(),
            "sqnr_db": {name: round(value, 2) for name, value in self.sqnr_db.items()},
            "macs": self.macs,
            "file_bytes": self.file_bytes,
            "state_bytes": self.state_bytes,
            "refused": self.refused,
        }


@dataclass(frozen=True)
class Tuned:
    """The end of a search.

    Attributes:
        tries: All of them, best first; the refused ones last.
        declared: What the model file says.
        best: The best that costs no more than was allowed.
    """

    tries: tuple[Try, ...]
    declared: Try
    best: Try


class Tuner:
    """Looks for better settings of one model at one width on one target.

    From the best settings so far it tries all neighbours: another algorithm, one feature more or
    less, the layers that lose most at 16 bits. It ends when none of them is better.

    Args:
        model: As its file declares it.
        target: ESP-IDF target name.
        bits: Width of what no setting speaks of.
        store: For artifacts.
        tries: The most that is tried, the declared settings included.
        more_macs: Largest share of multiply-accumulates above those of the declared settings.
        progress: Called before and after each try.
    """

    def __init__(
        self,
        model: StreamingModel,
        target: str,
        bits: int,
        store: Store,
        *,
        tries: int,
        more_macs: float,
        progress: Progress,
    ) -> None:
        self._model, self._target, self._bits, self._store = model, target, bits, store
        self._room, self._more_macs, self._progress = tries, more_macs, progress
        self._found: dict[Quantization, Try] = {}

    def run(self) -> Tuned:
        """Search.

        Raises:
            HarnessError: the model cannot be quantized as it is declared.
        """
        with one_scheduler():
            return self._run()

    def _run(self) -> Tuned:
        start = self._model.quantization
        self._measure([start], insist=True)
        declared = best = self._found[start]
        most = int(declared.macs * (1 + self._more_macs))
        while True:
            self._measure(list(self._neighbours(best, most)))
            fitting = [each for each in self._found.values() if each.macs <= most]
            leader = max(fitting, key=lambda each: each.worst_db)
            if leader.worst_db < best.worst_db + MIN_GAIN_DB:
                break
            best = leader
        ranked = sorted(self._found.values(), key=lambda each: -each.worst_db)
        return Tuned(tuple(ranked), declared, best)

    def _neighbours(self, best: Try, most: int) -> Iterator[Quantization]:
        """Settings that differ from the best in one point, the likeliest first."""
        now = best.quantization
        for algorithm in self._algorithms:
            yield replace(now, algorithm=algorithm)
        for count in LAYERS_AT_ONCE:
            macs, fitting = best.macs, {}
            for layer in list(best.lost_db)[:count]:
                more = best.macs_of[layer] * (MACS_OF_WIDE - 1)
                if macs + more <= most:
                    macs += more
                    fitting[layer] = WIDE
            if fitting:
                yield replace(now, layer_bits={**now.layer_bits, **fitting})
        yield replace(now, equalization=not now.equalization)
        yield replace(now, bias_correction=not now.bias_correction)
        if now.avoid_lane_saturation or (best.saturates and self._bits == NARROW):
            yield replace(now, avoid_lane_saturation=not now.avoid_lane_saturation)
        is_declared = now.batches == self._model.quantization.batches
        if is_declared and now.batches * MORE_BATCHES <= MAX_BATCHES:
            yield replace(now, batches=now.batches * MORE_BATCHES)

    @property
    def _algorithms(self) -> tuple[Algorithm | None, ...]:
        """One of each kind; None is esp-ppq's own."""
        return (None, *ALGORITHMS[1:]) if self._bits == NARROW else (None, "percentile")

    def _measure(self, wanted: Sequence[Quantization], *, insist: bool = False) -> None:
        """Make what has not been tried yet, as far as the budget goes."""
        new = [each for each in dict.fromkeys(wanted) if each not in self._found]
        new = new[: self._room - len(self._found)]
        if not new:
            return
        models = {each: replace(self._model, quantization=each) for each in new}
        recipes = {each: Recipe.of(models[each], self._target, self._bits) for each in new}
        before = len(self._found)
        results = prepare(
            list(recipes.values()),
            self._store,
            progress=lambda done, _, label: self._progress(before + done, label),
        )
        for each, recipe in recipes.items():
            result = results[recipe.key]
            if isinstance(result, HarnessError):
                if insist:
                    raise result
                self._found[each] = Try(each, refused=str(result).splitlines()[0])
            else:
                self._found[each] = try_recipe(models[each], self._target, self._bits, result)


def try_recipe(model: StreamingModel, target: str, bits: int, artifacts: Artifacts) -> Try:
    """Measure what one recipe keeps and costs, at the first chunk size."""
    errors = [
        str(finding)
        for findings in artifacts.lint.values()
        for finding in findings
        if finding.severity is Severity.ERROR
    ]
    if errors:
        return Try(model.quantization, refused=errors[0])
    expected = Expected(Case(target, model, bits, model.chunk_frames[0]), artifacts)
    try:
        kept = measure(expected, expected.offline)
        plan, graph = expected.plan, expected.streaming_graph
        saturates = bool(expected.lane_warnings)
    except HarnessError as error:
        return Try(model.quantization, refused=str(error).splitlines()[0])
    macs = _macs(graph, target)
    lost_db, names = expected.ladder.lost_db, _names(expected.offline_graph)
    narrow = {
        node.name: macs.get(node.name, 0)
        for node in expected.offline_graph.nodes
        if node.attributes.get("quant_type") == "S8" and node.name in lost_db
    }
    worst = sorted(narrow, key=lambda node: (-lost_db[node], narrow[node]))
    return Try(
        quantization=model.quantization,
        sqnr_db=kept.sqnr_db,
        macs=sum(macs.values()),
        file_bytes=expected.streaming_path.stat().st_size,
        state_bytes=plan.state_bytes,
        lost_db={names[node]: lost_db[node] for node in worst},
        macs_of={names[node]: narrow[node] for node in worst},
        saturates=saturates,
    )


def _macs(graph: Graph, target: str) -> dict[str, int]:
    """Multiply-accumulates by node, those of 16 bits twice."""
    shapes = check_graph(graph, target)
    return {
        node.name: node_macs(node, shapes)
        * (MACS_OF_WIDE if node.attributes.get("quant_type") == "S16" else 1)
        for node in graph.nodes
    }


def _names(graph: Graph) -> dict[str, str]:
    """What ``layer_bits`` calls each node: its module if that is a layer with weights.

    The module of another node may have had more nodes, which the file has no longer.
    """
    weights = {
        node.name: [name for name in node.inputs[1:] if name in graph.initializers]
        for node in graph.nodes
    }
    paths = {
        node.name: module_of(node.name, node.op_type, weights[node.name])
        for node in graph.nodes
        if node.op_type in WEIGHTED and weights[node.name]
    }
    alone = {
        name
        for name, path in paths.items()
        if not any(fits(path, other, paths[other]) for other in paths if other != name)
    }
    return {name: (name in alone and paths[name]) or name for name in weights}
