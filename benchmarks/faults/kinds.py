"""What a kind of fault is, and how injectors pick the place to break."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from espdl_hil.diagnosis.mismatch import Facts
from faults.device import Flaw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.diagnosis import Cause
    from espdl_hil.diagnosis.mismatch import Array, Offline
    from espdl_hil.espdl import Graph, Node
    from faults.subjects import Subject

Random = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True)
class Injection:
    """One instance of a fault.

    Attributes:
        flaw: What is wrong with the device.
        facts: What the session knows beforehand.
        planned: The subject as a wrong export or plan makes it; device and interpreter agree.
    """

    flaw: Flaw = field(default_factory=Flaw)
    facts: Facts = field(default_factory=Facts)
    planned: Subject | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: A few words.
        area: ``artifact``, ``plan``, ``firmware``, ``state``, ``order``, ``transport`` or
            ``arithmetic``.
        cause: What a diagnosis must say.
        inject: Makes an instance; raises ``NoPlace`` if the subject has nothing to break.
    """

    name: str
    area: str
    cause: Cause
    inject: Callable[[Subject, Random], Injection]


class NoPlace(Exception):  # noqa: N818 - nothing is wrong, the fault has no place here
    """The subject has nothing that this kind of fault could break."""


class Register(list[Kind]):
    """A list of kinds that injectors put themselves on."""

    def kind(
        self, name: str, area: str, cause: Cause
    ) -> Callable[[Callable[..., Injection]], Callable[..., Injection]]:
        """Note the decorated injector."""

        def note(inject: Callable[..., Injection]) -> Callable[..., Injection]:
            self.append(Kind(name, area, cause, inject))
            return inject

        return note


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of *items*.

    Raises:
        NoPlace: there is none.
    """
    if not items:
        raise NoPlace
    return items[int(rng.integers(len(items)))]


def offline_of(subject: Subject) -> Offline:
    """The offline model.

    Raises:
        NoPlace: the subject's outputs are no slices of it.
    """
    if subject.offline is None:
        raise NoPlace
    return subject.offline


def linear_nodes(graph: Graph) -> list[Node]:
    """Nodes with a packed filter."""
    return [n for n in graph.nodes if n.op_type == "Conv"]


def biased_nodes(graph: Graph) -> list[Node]:
    """Those of them that have a bias."""
    return [n for n in linear_nodes(graph) if len(n.inputs) > 2 and n.inputs[2]]


def summing_nodes(graph: Graph) -> list[Node]:
    """Nodes whose accumulators ``arithmetic.plain_sums`` knows."""
    integer = (n for n in graph.nodes if graph.value_info[n.outputs[0]].dtype.kind == "i")
    return [n for n in integer if n.op_type in ("Conv", "Add", "Sub", "Mul")]


def caches(graph: Graph) -> list[Node]:
    """The streaming caches."""
    return [n for n in graph.nodes if n.op_type == "StreamingCache"]


def with_raw(graph: Graph, name: str, raw: Array) -> Graph:
    """The graph with other elements of a constant."""
    tensor = replace(graph.initializers[name], raw=raw)
    return replace(graph, initializers={**graph.initializers, name: tensor})


def rewired(graph: Graph, node: Node, **changes: object) -> Graph:
    """The graph with one node changed."""
    nodes = tuple(replace(n, **changes) if n.name == node.name else n for n in graph.nodes)
    return replace(graph, nodes=nodes)
