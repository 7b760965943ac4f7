"""What is being done is shown where somebody looks, and disturbs nobody else."""

import contextlib
import io

import pytest

from espdl_hil.proof.watch import ProgressLine


class Screen(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def watched(monkeypatch, screen, clock):
    """Make a watch of the screen, or of another stream."""

    def make(stream=screen, **options):
        monkeypatch.setattr("sys.stderr", stream)  # here: a fixture's would be undone
        return ProgressLine(clock=clock, **options)

    return make


def stream(watch, *at_s, fails=False):
    """A chunk at each time."""
    with watch.work("streaming tcn", "chunks") as step:
        for number, at in enumerate(at_s, 1):
            watch._clock.now_s = 100.0 + at
            step(number, 40)
        if fails:
            raise OSError


def test_what_is_done_at_once_shows_nothing(watched, screen):
    stream(watched(), 0.1, 0.5, 0.9)
    assert screen.getvalue() == ""


def test_a_terminal_has_one_line_with_rate_and_time_left_which_is_gone_afterwards(watched, screen):
    stream(watched(), 0.5, 2.0, 2.1, 4.0)
    assert screen.getvalue() == (
        "\r\x1b[Kstreaming tcn: 2 of 40 chunks, 1/s, 38 s left"
        "\r\x1b[Kstreaming tcn: 4 of 40 chunks, 1/s, 36 s left"
        "\r\x1b[K"
    )


def test_a_line_of_someone_else_is_left_alone_and_gone_on_with(watched, screen):
    with contextlib.suppress(OSError):
        stream(watched(column=lambda: 17), 2.0, 3.0, fails=True)
    below, shown, *_, end = screen.getvalue().split("\r\x1b[K")
    assert (below, shown) == ("\n", "streaming tcn: 1 of 40 chunks, 0.5/s, 78 s left")
    assert end == "\x1b[A\x1b[18G"  # up, and behind the 17 characters


def test_a_long_line_is_cut_to_the_terminal(watched, screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream(watched(), 2.0)
    assert screen.getvalue() == "\r\x1b[Kstreaming tcn: 1 of\r\x1b[K"


def test_a_log_has_a_line_twice_a_minute_and_no_control_character(watched):
    log = io.StringIO()
    stream(watched(log, column=lambda: 17), 2.0, 31.0, 45.0, 62.0)
    assert log.getvalue() == (
        "streaming tcn: 2 of 40 chunks, 0.0645/s, 589 s left\n"
        "streaming tcn: 4 of 40 chunks, 0.0645/s, 558 s left\n"
    )


def test_a_terminal_that_is_not_ours_is_not_written_to(watched, screen):
    watch = watched(live=False)
    stream(watch, 2.0, 90.0)
    with watch.work("flashing", at_once=True):
        pass
    assert screen.getvalue() == ""


def test_a_capture_makes_way_for_each_write(watched, screen):
    open_now = []

    @contextlib.contextmanager
    def around():
        open_now.append(True)
        yield
        open_now.pop()

    written = screen.write
    screen.write = lambda text: written(text) if open_now else pytest.fail("captured")
    with watched(around=around).work("flashing", at_once=True):
        assert screen.getvalue() == "\r\x1b[Kflashing"
    assert screen.getvalue() == "\r\x1b[Kflashing\r\x1b[K"
