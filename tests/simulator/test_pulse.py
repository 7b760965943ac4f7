"""The pulse beats while its work lasts, and at no other time."""

import threading
import time

from espdl_hil.simulator.pulse import Pulse


def test_long_work_pulses_and_idleness_does_not():
    beats, twice = [], threading.Event()

    def beat():
        beats.append(time.monotonic())
        if len(beats) > 1:
            twice.set()

    with Pulse(beat, period_s=0.01) as pulse:
        time.sleep(0.05)
        assert beats == []
        assert pulse.during(lambda: twice.wait(10))
        count = len(beats)
        time.sleep(0.05)
        assert len(beats) == count
