"""The pytest plugin: what pytest finds of it in every session. Glue only.

Importing this costs next to nothing: pytest loads it in every session of an environment
in which the package is installed. What works with devices is registered when a collected test
uses a fixture of ours, see ``session.py``; what collects and prints the rows, ``summary.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from espdl_hil.errors import HarnessError
from espdl_hil.plugin import hookspec
from espdl_hil.plugin.dealing import deal, pytest_xdist_make_scheduler
from espdl_hil.plugin.options import add_options, read_settings
from espdl_hil.plugin.rootdir import pytest_load_initial_conftests
from espdl_hil.plugin.worker import (
    has_refused,
    pytest_cmdline_main,
    pytest_configure_node,
    pytest_testnodedown,
    refuse,
    seat_of,
    worker_count,
    worker_name,
)

if TYPE_CHECKING:
    from espdl_hil.device.dut import Dut
    from espdl_hil.plugin.session import HilSession
    from espdl_hil.plugin.summary import Summary
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.hil import Hil
    from espdl_hil.proof.settings import Settings

__all__ = [
    "pytest_cmdline_main",
    "pytest_configure_node",
    "pytest_load_initial_conftests",
    "pytest_testnodedown",
    "pytest_xdist_make_scheduler",
]

_settings_key: pytest.StashKey[Settings] = pytest.StashKey()
_cases_key: pytest.StashKey[list[Case]] = pytest.StashKey()
_mistake_key: pytest.StashKey[HarnessError] = pytest.StashKey()
_session_key: pytest.StashKey[HilSession] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--hil-*`` options."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks of a lab."""
    pluginmanager.add_hookspecs(hookspec)


def pytest_configure(config: pytest.Config) -> None:
    """Quieten what pytest-embedded, which comes with us, does around the user's own tests."""
    config.addinivalue_line("filterwarnings", "ignore:record_xml_attribute is ")  # either kind


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``hil`` once a case, one with ``hil_dut`` alone once a target."""
    if "hil" in metafunc.fixturenames:
        cases = _cases(metafunc.config)
        metafunc.parametrize("hil_case", cases, ids=[case.id for case in cases])
    elif "hil_dut" in metafunc.fixturenames:
        settings = _settings(metafunc.config)
        metafunc.parametrize("hil_dut", settings.targets if settings else (), indirect=True)


@pytest.hookimpl(tryfirst=True)  # before the terminal reports the collection
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what works with devices, when a collected test asks for one."""
    config = session.config
    if (mistake := config.stash.get(_mistake_key, None)) is not None:
        refuse(config, mistake)
        return
    if _settings_key not in config.stash or config.option.collectonly:
        return
    from espdl_hil.plugin.session import HilSession, cases_of, targets_of
    from espdl_hil.report import clear_logs

    settings, needed = config.stash[_settings_key], targets_of(session.items)
    if not needed:
        return
    if worker := worker_name(config):
        clear_logs(settings.report, worker)
    try:
        targets = deal(settings, needed, seat_of(config), worker_count(config))
        if not targets:
            return
        cases = [case for case in cases_of(session.items) if case.target in targets]
        runtime = HilSession(config, settings, cases, targets)
        if not worker:
            _register_summary(config, [case.id for case in cases])
        runtime.find_ports()
    except HarnessError as error:
        refuse(config, error)
        return
    config.stash[_session_key] = runtime
    config.pluginmanager.register(runtime, "hil-session")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, in the controller
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Start the one report of all workers, before any of them is given a test.

    Raises:
        pytest.UsageError: the command line asks for what cannot be.
    """
    from espdl_hil.plugin.summary import case_ids_in

    config: pytest.Config = node.config
    if (case_ids := case_ids_in(ids)) and not config.pluginmanager.hasplugin("hil-summary"):
        try:
            summary = _register_summary(config, case_ids)
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from None
        if (terminal := config.pluginmanager.getplugin("terminalreporter")) is not None:
            terminal.write_line(summary.headline())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Run nothing in a worker that has found a mistake."""
    return has_refused(item.config) or None


@pytest.fixture
def hil(hil_case: Case, request: pytest.FixtureRequest) -> Hil:
    """One model at one width and chunk size, on its device; see ``espdl_hil.proof.hil.Hil``."""
    return request.config.stash[_session_key].open(hil_case)


@pytest.fixture
def hil_dut(request: pytest.FixtureRequest) -> Dut:
    """The device alone, flashed and booted once a session; that of ``hil`` beside it."""
    params = request.node.callspec.params
    target = params["hil_case"].target if "hil_case" in params else request.param
    return request.config.stash[_session_key].dut(target)


def _register_summary(config: pytest.Config, case_ids: list[str]) -> Summary:
    from espdl_hil.plugin.summary import Summary

    summary = Summary(config, read_settings(config), case_ids)
    config.pluginmanager.register(summary, "hil-summary")
    return summary


def _settings(config: pytest.Config) -> Settings | None:
    """Read the command line once; a mistake in it waits for the end of the collection.

    Raised here, pytest would wrap it in a traceback for every test module.
    """
    if _settings_key not in config.stash and _mistake_key not in config.stash:
        try:
            config.stash[_settings_key] = read_settings(config)
        except HarnessError as error:
            config.stash[_mistake_key] = error
    return config.stash.get(_settings_key, None)


def _cases(config: pytest.Config) -> list[Case]:
    """Load the models once; a mistake in them waits, too."""
    settings = _settings(config)
    if settings is None or _cases_key in config.stash:
        return config.stash.get(_cases_key, [])
    from espdl_hil.proof.case import make_cases

    config.stash[_cases_key] = []
    try:
        config.stash[_cases_key] = make_cases(settings.model_paths, settings.targets)
    except HarnessError as error:
        config.stash[_mistake_key] = error
    return config.stash[_cases_key]
