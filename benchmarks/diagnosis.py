"""Seeded-fault campaign: is every fault detected, and its cause named?

    python benchmarks/diagnosis.py [--instances 25] [--seed 1] [--kind NAME] [--keep FILE]

Each instance breaks one thing (``espdl_hil.simulator.faults``) on one model of the zoo or the
golden vectors and streams it through the firmware core with the product's own client
(``campaign/device.py``). What the product is fed then, and nothing else, goes to the diagnosis:
the verdict, the device's remarks, and a freshly loaded model to look into. An instance that changes
no output is drawn again and counted apart. A run without a fault must raise no alarm. The exit code
is 0 if all faults that change an output are detected, 95% of the causes are right and there is no
alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from campaign.device import Device
from campaign.kinds import KINDS, Kind, NoPlace, Trial
from campaign.subjects import golden_subjects, zoo_subjects

from espdl_hil.compare import Outcome
from espdl_hil.device.errors import RequestError
from espdl_hil.diagnosis import Cause
from espdl_hil.proof.explain import explain
from espdl_hil.quantize import Store
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from campaign.subjects import Subject

    from espdl_hil.device.tensors import StepResult
    from espdl_hil.diagnosis import Diagnosis

ROOT = Path(__file__).resolve().parents[1]
DRAWS = 60  # for each instance that is wanted; most faults of some kinds change no output
RIGHT = 0.95  # of the causes


@dataclass(frozen=True)
class Result:
    """One instance.

    Attributes:
        kind: What was broken.
        subject: On which model.
        detected: Whether the verdict failed.
        diagnosis: What was said; None if nothing was.
        seconds: How long the diagnosis took.
    """

    kind: Kind
    subject: Subject
    detected: bool
    diagnosis: Diagnosis | None = None
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the cause was named."""
        return self.diagnosis is not None and self.diagnosis.cause is self.kind.cause


def run(device: Device, kind: Kind, subject: Subject, trial: Trial) -> Result | None:
    """Compare and diagnose one instance; None if it changes no output.

    Raises:
        RequestError: the device refuses to load what the fault makes of the model.
    """
    with contextlib.ExitStack() as broken:
        broken.enter_context(device.broken(trial.faults))
        steps = observe(device, subject, trial)
        observed = [step.outputs for step in steps]
        verdict = subject.compare(observed)
        if verdict.outcome is Outcome.PASSED:
            silent = _same(subject.expected, observed)
            return None if silent else Result(kind, subject, detected=False)
        if trial.passing:
            broken.close()
        start = time.perf_counter()
        found = explain(subject.mismatch(observed, verdict, steps), subject.loaded(device))
        return Result(kind, subject, True, found, time.perf_counter() - start)


def observe(device: Device, subject: Subject, trial: Trial) -> list[StepResult]:
    """The run that a test compares."""
    order = range(len(subject.chunks)) if trial.order is None else trial.order
    with subject.loaded(device) as model:
        if trial.before:
            model.stream(trial.before, reset=True)
        return model.stream([subject.chunks[number] for number in order], reset=trial.reset)


def _same(expected: Sequence[dict[str, Any]], observed: Sequence[dict[str, Any]]) -> bool:
    pairs = zip(expected, observed, strict=True)
    return all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a)


def campaign(
    devices: Mapping[str, Device],
    kind: Kind,
    subjects: Sequence[Subject],
    instances: int,
    seed: int,
) -> tuple[list[Result], int]:
    """Draw instances of one kind.

    Returns:
        The instances that change an output, and how many did not.
    """
    rng = np.random.default_rng([seed, *kind.name.encode()])
    results: list[Result] = []
    silent = 0
    for _ in range(DRAWS * instances):
        if len(results) == instances:
            break
        subject = subjects[int(rng.integers(len(subjects)))]
        try:
            trial = kind.draw(subject, rng)
            result = run(devices[subject.target], kind, subject, trial)
        except (NoPlace, RequestError):  # no place, or what it makes is refused at load
            continue
        if result is None:
            silent += 1
        else:
            results.append(result)
    return results, silent


def false_alarms(devices: Mapping[str, Device], subjects: Iterable[Subject]) -> tuple[int, int]:
    """Run every subject without a fault; runs, and runs that did not pass."""
    runs = alarms = 0
    for subject in subjects:
        steps = observe(devices[subject.target], subject, Trial())
        observed = [step.outputs for step in steps]
        verdicts = [subject.compare(observed)]
        if subject.offline is not None:
            verdicts.append(subject.compare_offline(observed))
        runs += len(verdicts)
        alarms += sum(verdict.outcome is not Outcome.PASSED for verdict in verdicts)
    return runs, alarms


def table(results: Sequence[Result], silent: dict[str, int]) -> list[str]:
    """A line for each kind of fault."""
    counts = "".join(f"{word:>7}" for word in ("runs", "found", "right", "silent"))
    lines = [f"{'fault':32}{'area':12}{'cause to name':29}{counts}"]
    for kind in dict.fromkeys(result.kind for result in results):
        own = [result for result in results if result.kind is kind]
        found, right = sum(r.detected for r in own), sum(r.right for r in own)
        lines.append(
            f"{kind.name:32}{kind.area:12}{kind.cause!s:29}{len(own):7}{found:7}{right:7}"
            f"{silent[kind.name]:7}"
        )
    return lines


def matrix(results: Sequence[Result]) -> list[str]:
    """Rows: the cause that was injected; columns: the cause that was named."""
    causes = [cause for cause in Cause if any(_involves(result, cause) for result in results)]
    letters = {cause: chr(ord("a") + i) for i, cause in enumerate(causes)}
    counts = Counter(
        (result.kind.cause, result.diagnosis.cause) for result in results if result.diagnosis
    )
    lines = [f"{'injected':33}" + "".join(f"{letter:>5}" for letter in letters.values())]
    for cause in causes:
        cells = "".join(f"{counts[cause, named] or '.':>5}" for named in causes)
        lines.append(f"{letters[cause]}  {cause!s:30}{cells}")
    return lines


def _involves(result: Result, cause: Cause) -> bool:
    named = result.diagnosis is not None and result.diagnosis.cause is cause
    return named or result.kind.cause is cause


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--instances", type=int, default=25, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", default="", help="only kinds whose name contains this")
    parser.add_argument("--golden", action="store_true", help="only models of the golden vectors")
    parser.add_argument("--store", type=Path, help="artifact store; default is the user's")
    parser.add_argument("--show", action="store_true", help="print wrong diagnoses")
    parser.add_argument("--keep", type=Path, help="write the tables to this file")
    options = parser.parse_args()
    subjects = list(golden_subjects())
    if not options.golden:
        subjects += zoo_subjects(Store(options.store), ROOT / "models")
    start = time.perf_counter()
    results: list[Result] = []
    silent: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        devices = {name: stack.enter_context(Device(name)) for name in DEVKIT_TARGETS}
        for kind in KINDS:
            if options.kind in kind.name:
                own, silent[kind.name] = campaign(
                    devices, kind, subjects, options.instances, options.seed
                )
                results += own
                right = sum(result.right for result in own)
                print(f"{kind.name:32}{right:3} of {len(own)} right", flush=True)
        runs, alarms = false_alarms(devices, subjects)
    detected, right = sum(r.detected for r in results), sum(r.right for r in results)
    lines = [
        *table(results, silent),
        "",
        *matrix(results),
        "",
        f"{len({s.name for s in subjects})} models and chunk sizes, {len(subjects)} artifacts, "
        f"{len({r.kind.name for r in results})} kinds, {len(results)} faults that change an output "
        f"(seed {options.seed})",
        f"detected {detected} of {len(results)}, cause right in {right} "
        f"({100 * right / max(1, len(results)):.1f}%)",
        f"without a fault: {runs} verdicts, {alarms} alarms",
    ]
    print("\n".join(["", *lines]))
    longest = max(results, key=lambda r: r.seconds)
    print(
        f"{time.perf_counter() - start:.0f} s; the longest diagnosis took {longest.seconds:.1f} s"
    )
    for result in results:
        if options.show and not result.right:
            print(f"\n{result.kind.name}:", result.diagnosis.text if result.diagnosis else "missed")
    if options.keep:
        options.keep.write_text("\n".join(lines) + "\n")
    return int(detected < len(results) or right < RIGHT * len(results) or alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
