"""A refusal, shown as a finding of the lint."""

from espdl_hil.cli.lint import finding_of
from espdl_hil.streaming import rules
from espdl_hil.streaming.rules import refuse


def test_a_refusal_names_its_rule_and_node_once():
    finding = finding_of(refuse(rules.RESIZE, "/up", "12 frames become 24"))

    assert (finding.rule, finding.node) == ("S106", "/up")
    assert finding.message == "resize in time: 12 frames become 24"
    assert str(finding).count("S106") == str(finding).count("/up") == 1
