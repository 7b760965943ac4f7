"""The pytest plugin: options, the ``hil`` fixture, collection. Glue only.

Importing this costs next to nothing: pytest loads it in every session of an environment
in which the package is installed.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.plugin.options import add_options, read_options
from espdl_hil.plugin.orphans import die_with_parent_at_fork
from espdl_hil.plugin.rootdir import restart_if_misread

if TYPE_CHECKING:
    from espdl_hil.plugin.session import HilSession
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.hil import Hil
    from espdl_hil.proof.settings import Settings

__all__ = ["Hil"]

_cases_key: pytest.StashKey[list[Case]] = pytest.StashKey()
_options_key: pytest.StashKey[Settings] = pytest.StashKey()
_mistake_key: pytest.StashKey[ConfigError] = pytest.StashKey()
_session_key: pytest.StashKey[HilSession] = pytest.StashKey()


def __getattr__(name: str) -> Any:
    if name == "Hil":
        from espdl_hil.proof.hil import Hil

        return Hil
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--hil-*`` options."""
    restart_if_misread()
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of the shipped tests; quieten what pytest-embedded does in each test."""
    config.addinivalue_line(
        "markers", "negative: a control; it breaks something on purpose, which must be noticed"
    )
    config.addinivalue_line(
        "filterwarnings", "ignore:record_xml_attribute is an experimental feature"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for ``hil`` once a case."""
    if "hil" not in metafunc.fixturenames:
        return
    cases = _select(metafunc.config)
    metafunc.parametrize("hil_case", cases, ids=[case.id for case in cases])


@pytest.hookimpl(tryfirst=True)  # before the terminal reports the collection
def pytest_collection_finish(session: pytest.Session) -> None:
    """Check that the boards are there, and start the runtime side."""
    config = session.config
    if _cases_key not in config.stash:
        return
    if (mistake := config.stash.get(_mistake_key, None)) is not None:
        raise pytest.UsageError(str(mistake))
    if config.option.collectonly:
        return
    from espdl_hil.plugin.session import HilSession, case_of

    cases = list(dict.fromkeys(case for item in session.items if (case := case_of(item))))
    if not cases:
        return
    options = config.stash[_options_key]
    die_with_parent_at_fork()
    command = shlex.join(["pytest", *map(str, config.invocation_params.args)])
    config.stash[_session_key] = HilSession(options, cases, command)
    config.pluginmanager.register(config.stash[_session_key], "hil-session")


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    """Say before anything runs whether chips or simulated devkits are tested."""
    runtime = config.stash.get(_session_key, None)
    return None if runtime is None else runtime.headline()


@pytest.fixture
def hil(hil_case: Case, request: pytest.FixtureRequest) -> Hil:
    """One model at one width and chunk size, on its device; see ``espdl_hil.plugin.Hil``."""
    return request.config.stash[_session_key].open(hil_case)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say what differs between two runs, and why."""
    explain = getattr(left, "explain", None)
    if explain is None or type(left).__module__ != "espdl_hil.proof.run":
        return None
    return [f"{left!r} {op} {right!r}", *explain(right)]


def _select(config: pytest.Config) -> list[Case]:
    """Select the cases once; a mistake in them waits for the end of the collection.

    Raised here, pytest would wrap it in a traceback for every test module.
    """
    found = config.stash.get(_cases_key, None)
    if found is None:
        from espdl_hil.proof.case import make_cases

        found = config.stash[_cases_key] = []
        try:
            options = config.stash[_options_key] = read_options(config)
            found += make_cases(options.model_paths, options.targets)
        except ConfigError as error:
            config.stash[_mistake_key] = error
    return found
