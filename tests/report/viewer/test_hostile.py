"""Text of a run is hostile, promises: markup, scripts, control characters and marks that turn the direction
of writing are seen as text, wherever they stand; nothing of it runs, and the page asks nobody for anything.
"""

import json
import re

import pytest

from actfocus.report.viewer.page import embed, policy, script, style
from tests.report.viewer.runs import plain, play, with_figures

MARKUP = "</script><script>window.hit = 1; alert(1)</script><img src=x onerror='window.hit = 2'>"
SIGNS = "\x00\x1b[31m\x07\x7f\x85\u202egnihtyna\u202c\u2066\u200f\u200b\ufeff\u2028\u2029\u00ad\U000e0041"
HOSTILE = f"<think>{MARKUP}{SIGNS}\r\n\tשלום</think><answer> {MARKUP}</answer>"


def hostile_records():
    records = [with_figures(play([HOSTILE, f"{MARKUP} no tags", HOSTILE]))]
    records[0]["problems"] = [MARKUP + SIGNS, "\u202eunknown", None]
    records[0]["ended"] = MARKUP
    records[0]["figures"] = {MARKUP: 1.5, "\u202escore": 2.0}
    records[0]["start"]["level_seed"] = MARKUP
    return [*records, plain(play([HOSTILE]))]


def test_hostile_text_is_text(open_viewer, write_page) -> None:
    url = write_page({1: hostile_records()})
    viewer = open_viewer(url, offline=False)
    viewer.shows(1, 0)
    viewer.press("e", *["ArrowRight"] * 40, "a", "n")
    viewer.shows(1, 1)
    viewer.press("p")
    viewer.shows(1, 0)
    assert viewer.page.evaluate("window.hit") is None
    assert viewer.page.evaluate("document.images.length + document.scripts.length") == 1
    assert [address for address in viewer.requests if not address.startswith("data:")] == [url]
    body = viewer.page.inner_text("body")
    assert MARKUP in "".join(viewer.texts(".message.reply .t"))
    assert MARKUP in viewer.page.inner_text("#facts") and MARKUP in viewer.page.inner_text(
        ".problem >> nth=0"
    )
    for sign in ("‹NUL›", "‹ESC›[31m", "‹BEL›", "‹DEL›", "‹CR›", "‹TAB›", "↵"):
        assert sign in body, sign
    for code in ("0085", "202E", "202C", "2066", "200F", "200B", "FEFF", "2028", "2029", "00AD", "E0041"):
        assert f"‹U+{code}›" in body, code
    raw = viewer.page.evaluate(
        "document.body.innerText + [...document.querySelectorAll('*')].map((one) =>"
        " (one.title || '') + (one.getAttribute('aria-label') || '')).join('')"
    )
    assert (
        re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", raw) == []
    )


def test_every_token_keeps_its_direction_to_itself(open_viewer, write_page) -> None:
    viewer = open_viewer(write_page({1: hostile_records()}))
    viewer.shows(1, 0)
    styles = viewer.page.eval_on_selector_all(
        "#tokens .t", "all => [...new Set(all.map((one) => getComputedStyle(one).unicodeBidi))]"
    )
    assert styles == ["isolate"]


def test_the_name_of_the_run_is_text(open_viewer, write_page, tmp_path) -> None:
    from actfocus.report.viewer.collect import page_data
    from actfocus.report.viewer.page import render_page
    from tests.report.viewer.runs import write_run

    folder = tmp_path / "x<img src=x onerror=alert(1)> {{script}} \u202e\x07"
    data = page_data(write_run(folder, {1: [plain(play([HOSTILE]))]}))
    (tmp_path / "p.html").write_text(render_page(data), encoding="utf-8")
    viewer = open_viewer((tmp_path / "p.html").as_uri())
    viewer.shows(1, 0)
    assert viewer.page.inner_text("h1") == "x<img src=x onerror=alert(1)> {{script}} ‹U+202E›‹BEL›"
    assert viewer.page.title().startswith("x<img src=x onerror=alert(1)> {{script}} \\u202e\\x07 ")


@pytest.mark.parametrize("text", [MARKUP, SIGNS, "<!--", "]]>", "&lt;", "\ud800", "\\u003c", '"\\'])
def test_embedded_data_cannot_end_its_element(text: str) -> None:
    embedded = embed({text: [text]})
    assert re.search(r"[<>&\u2028\u2029]|[^ -~]", embedded) is None
    assert json.loads(embedded) == {text: [text]}


def test_the_policy_allows_our_script_alone() -> None:
    def rules_of(**options: bool) -> dict[str, str]:
        return dict(rule.split(" ", 1) for rule in policy(script(), style(), **options).split("; "))

    rules = rules_of()
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", rules["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]+'", rules["style-src"])
    assert rules_of(live=True) == rules | {"connect-src": "'self'"}


def test_a_script_that_is_put_into_the_page_does_not_run(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    refused = viewer.page.evaluate(
        """() => {
            try { document.body.innerHTML = "<b>x</b>"; return "taken"; } catch (error) { return error.name; }
        }"""
    )
    assert refused == "TypeError"
    viewer.complaints.clear()  # the browser says that it refused
