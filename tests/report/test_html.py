import re
from dataclasses import replace
from html.parser import HTMLParser

from espdl_hil.report import Details, Results, render_html

from .conftest import DATE, one_element

VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Collects tags and text; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_page_holds_every_row_and_device(results):
    page = Page(render_html(results))
    for row in results.rows:
        assert row.id in page.text
    assert "2 of 3 rows did not pass" in page.text
    assert "345 elements compared, 1 differ" in page.text
    assert "ESP32-S3 simulated" in page.text
    assert "they measure no chip time" in page.text
    assert "chunk 3: observed stream ends after 3" in page.text
    assert "2026-11-25T12:00:00+00:00, 12.5 s, models at 0123456789ab , changed since" in page.text
    assert "esp32s3: no reply; soft reset: recovered (1.2 s)" in page.text
    groups = [attrs for tag, attrs in page.tags if tag == "tbody"]
    assert [group["data-outcome"] for group in groups] == ["failed", "error", "passed"]
    cells = [attrs["title"] for tag, attrs in page.tags if tag == "i"]
    assert "chunk 2: 1 of 15 differ, max 1 LSB" in cells
    assert "chunk 3: chunk 3: observed stream ends after 3" not in cells
    assert "chunk 0: all 15 equal" in cells


def test_every_row_is_marked_simulated(results):
    text = render_html(results)
    assert text.count('<span class="sim">simulated</span>') == len(results.rows) + 1


def test_page_is_self_contained(results):
    text = render_html(results)
    page = Page(text)
    assert not [tag for tag, attrs in page.tags if {"src", "href"} & set(attrs)]
    assert "url(" not in text
    assert not re.search(r"https?://", text)


def test_names_and_messages_are_escaped(make_row, results):
    nasty = "<script>alert(1)</script>\"'&"
    row = make_row(
        one_element,
        model=nasty,
        id=nasty,
        diagnosis={"cause": nasty, "text": nasty},
        details=Details(error=nasty, notes=(nasty,), alignment=(nasty,)),
    )
    text = render_html(replace(results, rows=(row,), command=nasty))
    assert "<script>alert" not in text
    assert Page(text).text.count("<script>alert(1)</script>") >= 5


def test_all_passed(make_row):
    page = Page(render_html(Results(DATE, rows=(make_row(substrate="silicon"),))))
    assert "All 1 rows passed" not in page.text
    assert "The row passed" in page.text
    assert "simulated" not in page.text.lower()


def test_a_device_that_computes_wrongly_shows_its_own_differences(make_row, make_results):
    """Both its runs are wrong alike: the stream equals the offline run, not the interpreter's."""
    row = make_row(one_element, spoilt=("interpreter",))
    page = Page(render_html(make_results(row)))
    assert "120 elements compared, 1 differ" in page.text
    cells = [attrs for tag, attrs in page.tags if tag == "i"]
    assert [cell["class"] for cell in cells[:4]] == ["passed", "passed", "failed", "passed"]
    assert "equal 1 (1 LSB)" in page.text
    assert "Device against interpreter Outcome failed" in page.text


def test_no_rows():
    page = Page(render_html(Results(DATE)))
    assert "No verdicts: nothing was compared" in page.text
    assert "No device answered." in page.text
    assert not [tag for tag, _ in page.tags if tag == "table"]
