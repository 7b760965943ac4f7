"""What a row gives to JUnit."""

import execnet

from espdl_hil.compare import FirstDifference, Outcome
from espdl_hil.plugin.summary import properties
from espdl_hil.report import Accuracy, Check, Latency, Resources, Row

FIRST = FirstDifference(0, 1, 2, 3, 4)
ROW = Row(
    *("esp32s3-tcn-int8-chunk3", "esp32s3", "tcn", 8, 3, "silicon", Outcome.FAILED),
    checks={"streaming": Check(Outcome.FAILED, 8, 8, 2, 1, None, FIRST, "exact", "why")},
    accuracy=Accuracy(Outcome.PASSED, 31.0, 30.0, 10.0, {"y": 31.0}),
    sqnr_db=31.0,
    latency_us=Latency(10.0, 11.0, 12.0, 12.0),
    resources=Resources(240, 5000, 900000, 81000, 1000, 20000, 300000, None, 9000),
    artifacts={"app": "ab"},
)


def test_every_figure_is_a_property_that_a_worker_can_send():
    told = dict(properties(ROW))
    execnet.dumps(list(told.items()))
    assert told["substrate"] == "silicon"
    assert told["cause"] == "not diagnosed"
    assert (told["streaming_differing"], told["streaming_max_lsb"]) == (2, 1)
    assert (told["sqnr_db"], told["accuracy_min_sqnr_db"]) == (31.0, 10.0)
    assert (told["latency_us_median"], told["latency_us_max"]) == (10.0, 12.0)
    assert (told["latency_cycles_p99"], told["internal_peak_bytes"]) == (2880, 300000)
    assert "psram_peak_bytes" not in told  # the firmware does not know it
    assert told["sha256_app"] == "ab"
    emulated = Row("a", "esp32s3", "m", 8, 3, "emulated", Outcome.ERROR, emulator="QEMU 9")
    told = dict(properties(emulated))
    assert (told["substrate"], told["emulator"]) == ("emulated", "QEMU 9")
    assert not any(name.startswith("latency") for name in told)
