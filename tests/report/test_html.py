import base64
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

from espdl_hil.compare import Outcome
from espdl_hil.report import Accuracy, Details, Results, render_html

from .conftest import DATE, one_element

VOID = {"meta", "input", "br", "wbr"}


class Page(HTMLParser):
    """Collects tags and text; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.rooms = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and self.tags[-1][1].get("id") == "rooms":
            lines = data.split()
            self.rooms = [json.loads(zlib.decompress(base64.b64decode(line))) for line in lines]
        elif not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def cells(self):
        return [attrs for tag, attrs in self.tags if attrs.get("class", "").startswith("cell")]


def test_first_screen_says_what_failed_and_why_and_where_it_ran(results):
    page = Page(render_html(results))
    assert "2 of 3 rows did not pass: not diagnosed (1), no verdict (1)" in page.text
    assert "345 elements compared, 1 differ" in page.text
    assert "ESP32-S3 v0.2 simulated" in page.text
    assert "they measure no chip time" in page.text
    assert "chunk 3: observed stream ends after 3" in page.text
    assert "2026-11-25 12:00:00 UTC , 12.5 s Models at 0123456789ab , changed since" in page.text
    assert "esp32s3: no reply; soft reset: recovered (1.2 s)" in page.text
    assert "pytest -k tcn" in page.text
    assert "esp-dl 3.3.9" in page.text


def test_a_cell_a_row_with_letter_figure_and_cause(results):
    page = Page(render_html(results))
    cells = {cell["data-id"]: cell for cell in page.cells()}
    assert list(cells) == [results.rows[n].id for n in (2, 0, 1)]  # by model and size of chunk
    said = [cells[row.id]["aria-label"] for row in results.rows]
    assert said == [
        "esp32s3-tcn-int8-chunk3: passed, 40 dB",
        "esp32s3-tcn-int16-chunk3: failed, 1 LSB, not diagnosed",
        "esp32s3-gru-int8-chunk3: error, no verdict, no verdict",
    ]
    for letter in ("P 3 40 dB", "F 3 1 LSB", "E 3 no verdict"):
        assert letter in page.text


def test_a_row_that_fails_by_accuracy_or_rule_shows_that_figure(make_row, make_results):
    low = Accuracy(Outcome.FAILED, 4.2, 1.0, 10.0, {"y": 4.2}, "output 'y' keeps 4.2 dB")
    rows = (
        make_row(outcome=Outcome.FAILED, accuracy=low, id="a"),
        make_row(
            outcome=Outcome.FAILED,
            checks={},
            accuracy=None,
            id="b",
            details=Details(error="[S101] /pool: reduction over time"),
        ),
    )
    page = Page(render_html(make_results(*rows)))
    said = [cell["aria-label"] for cell in page.cells()]
    assert said == ["a: failed, 4.2 dB, too little accuracy", "b: failed, S101, rule S101"]
    assert page.rooms[1]["rules"][0]["title"] == "reduction over time"
    assert "causal average pool" in page.rooms[1]["rules"][0]["edit"]


def test_a_room_holds_all_of_its_row(results):
    rooms = Page(render_html(results)).rooms
    assert [room["id"] for room in rooms] == [row.id for row in results.rows]
    whole = results.to_json()["rows"][1]
    del whole["details"]["per_chunk"]
    assert json.loads(json.dumps(whole)).items() <= rooms[1].items()
    assert rooms[1]["reason"] == results.rows[1].reason


def test_a_room_links_its_bundle_from_the_reports_folder(make_row, make_results):
    replay = "espdl-hil replay some where/hil-report/repro/esp32s3-tcn-int8-chunk3.zip"
    row = make_row(one_element, details=Details(replay=(replay, "not possible, the disk is full")))
    (room,) = Page(render_html(make_results(row))).rooms
    assert room["bundles"] == ["repro/esp32s3-tcn-int8-chunk3.zip"]


def test_page_is_self_contained(results):
    text = render_html(results)
    page = Page(text)
    links = [attrs.get("src") or attrs.get("href") for _, attrs in page.tags]
    assert all(link.startswith("#row=") for link in links if link)
    assert "url(" not in text
    assert "@import" not in text


def test_names_and_messages_are_escaped(make_row, results):
    nasty = "<script>alert(1)</script>\"'&\u202e"
    row = make_row(
        one_element,
        model=nasty,
        id=nasty,
        diagnosis={"cause": nasty, "text": nasty},
        details=Details(error=nasty, notes=(nasty,), alignment=(nasty,)),
    )
    text = render_html(replace(results, rows=(row,), command=nasty))
    assert "<script>alert" not in text
    assert "\u202e" not in text
    page = Page(text)
    assert page.text.count("<script>alert(1)</script>") >= 4
    assert page.rooms[0]["details"]["error"] == "<script>alert(1)</script>\"'&\\u202e"


def test_what_the_page_embeds_ends_no_script(results):
    text = render_html(results)
    assert len(re.findall(r"</script", text)) == len(re.findall(r"<script", text)) == 3


def test_all_passed(make_row):
    page = Page(render_html(Results(DATE, rows=(make_row(substrate="silicon"),))))
    assert "The row passed" in page.text
    assert "simulated" not in page.text.lower()
    assert "What did not pass" not in page.text


def test_no_rows():
    page = Page(render_html(Results(DATE)))
    assert "No verdicts: nothing was compared" in page.text
    assert "No device answered." in page.text
    assert not [tag for tag, _ in page.tags if tag == "table"]


def test_one_of_a_target_needs_no_filter_for_it(results, make_row, make_results):
    def filters(found):
        return {attrs["name"] for tag, attrs in Page(render_html(found)).tags if tag == "select"}

    assert filters(results) == {"outcome", "cause", "model", "bits", "figure"}
    assert filters(make_results(make_row())) == {"figure"}
