"""Progress is shown where pytest alone writes to the terminal."""

import pytest
from _pytest.terminal import TerminalReporter

from espdl_hil.plugin.progress import make_watch


class OtherReporter(TerminalReporter):
    """As pytest-sugar has one."""


@pytest.fixture(autouse=True)
def no_worker(pytestconfig, monkeypatch):
    """These tests may run in one themselves."""
    monkeypatch.delattr(pytestconfig, "workerinput", raising=False)


@pytest.fixture
def shown(pytestconfig, monkeypatch):
    """Whether a run with these options would show progress."""

    def ask(reporter=TerminalReporter, **options):
        for name, value in {"capture": "fd", "verbose": 0, **options}.items():
            monkeypatch.setattr(pytestconfig.option, name, value)
        known = pytestconfig.pluginmanager.getplugin
        made = reporter and reporter(pytestconfig)
        monkeypatch.setattr(
            pytestconfig.pluginmanager,
            "getplugin",
            lambda name: made if name == "terminalreporter" else known(name),
        )
        return make_watch(pytestconfig)._live

    return ask


def test_a_terminal_of_pytests_own_shows_it(shown):
    assert shown()
    assert shown(verbose=2)
    assert shown(capture="sys")


@pytest.mark.parametrize(
    "asked",
    [{"capture": "no"}, {"verbose": -1}, {"reporter": OtherReporter}, {"reporter": None}],
    ids=["-s", "-q", "sugar", "no terminal"],
)
def test_where_others_write_it_is_not_shown(shown, asked):
    assert not shown(**asked)


def test_a_worker_of_xdist_leaves_the_terminal_to_its_controller(shown, pytestconfig, monkeypatch):
    monkeypatch.setattr(pytestconfig, "workerinput", {"workerid": "gw0"}, raising=False)
    assert not shown()
