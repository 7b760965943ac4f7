"""What a JSON value has to be: small checks, and checks made of them. Knows no results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Predicate = Callable[[Any], bool]
Form = Mapping[str, Predicate]  # by field
MAX_SHOWN = 80  # characters of a wrong value


def is_text(value: Any) -> bool:
    """A string."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_count(value: Any) -> bool:
    """A whole number, 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_value(value: Any) -> bool:
    """What an element of a tensor can be."""
    return is_number(value) or value in ("nan", "inf", "-inf")


def or_null(check: Predicate) -> Predicate:
    """The same, or null."""
    return lambda value: value is None or check(value)


def list_of(check: Predicate, length: int | None = None) -> Predicate:
    """A list, of *length* if that is given."""
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(map(check, value))
    )


def map_of(check: Predicate, names: Predicate = is_text) -> Predicate:
    """An object of any fields."""
    return lambda value: (
        isinstance(value, Mapping) and all(map(names, value)) and all(map(check, value.values()))
    )


def has(form: Form) -> Predicate:
    """An object with these fields; it may have others."""
    return lambda value: (
        isinstance(value, Mapping)
        and all(name in value and check(value[name]) for name, check in form.items())
    )


def faults_of(value: Any, form: Form, where: str) -> list[str]:
    """Name what keeps a value from being of a form, each fault beginning with *where*."""
    if not isinstance(value, Mapping):
        return [f"{where}: not an object"]
    missing = [f"{where}: {name} is missing" for name in form if name not in value]
    return missing + [
        f"{where}: {name} is {shown(value[name])}"
        for name, check in form.items()
        if name in value and not check(value[name])
    ]


def shown(value: Any) -> str:
    """A wrong value in a message."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
