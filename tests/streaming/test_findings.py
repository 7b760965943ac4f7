"""Findings as data: in and out of JSON, from refusals, as errors."""

from __future__ import annotations

import json

import pytest

from espdl_hil.errors import StreamingError
from espdl_hil.streaming import Finding, finding_of, refuse, require_sound, rules
from espdl_hil.streaming.findings import find

WARNING = find(rules.COLD_HISTORY, "/conv", "output y warms up", "first 2")
ERROR = find(rules.SHARED_CACHE, "/Add", "meets tensors of 4, 6 frames", "all")


@pytest.mark.parametrize("finding", [WARNING, ERROR])
def test_a_finding_survives_json(finding):
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding


def test_a_severity_that_does_not_exist_is_no_finding():
    with pytest.raises(ValueError, match="fatal"):
        Finding.from_json({**ERROR.to_json(), "severity": "fatal"})


def test_a_refusal_names_its_rule_and_node_once():
    finding = finding_of(refuse(rules.RESIZE, "/up", "12 frames become 24"))

    assert (finding.rule, finding.node) == ("S106", "/up")
    assert finding.message == "resize in time: 12 frames become 24"
    assert str(finding).count("S106") == str(finding).count("/up") == 1


def test_the_first_error_is_raised_and_warnings_are_not():
    require_sound([WARNING])

    with pytest.raises(StreamingError) as caught:
        require_sound([WARNING, ERROR])

    assert (caught.value.rule, caught.value.node) == ("S202", "/Add")
    assert caught.value.message == ("[S202] /Add: shared cache: meets tensors of 4, 6 frames (all)")
    assert caught.value.hint == rules.SHARED_CACHE.edit
