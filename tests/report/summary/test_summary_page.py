"""The report in a real browser, promises:

1. It opens offline, asks nobody for anything, and fits a phone.
2. Roles are exactly the text between the tags: a shift by one or an inversion fails. A heavier weight
   is never lighter in shade, and every figure of a token can be reached by pointer and by keyboard.
3. Text of a run is hostile and is seen as text, in trajectories and everywhere else.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actfocus.report.summary.page import policy, write_report
from tests.report.summary.runs import evaluation, make, metrics_of
from tests.report.viewer import test_hostile, test_page
from tests.report.viewer.runs import REPLY, Record, play, replace, small_step, with_figures

Open = Callable[..., Any]


@pytest.fixture
def show(open_viewer: Open, tmp_path: Path) -> Open:
    """Open the report of a run with these records in its last step."""
    made = 0

    def show(records: list[Record] | None = None, **options: Any) -> Any:
        nonlocal made
        made += 1
        settings = {"width", "scheme", "offline"}
        given = {key: value for key, value in options.items() if key not in settings}
        run = make(tmp_path / str(made) / "run", None if records is None else {4: records}, **given)
        url = Path(write_report(run)["out"]).as_uri()
        viewer = open_viewer(url, **{key: options[key] for key in settings & options.keys()})
        viewer.url = url
        viewer.page.wait_for_selector("#trajectories[data-drawn]")
        return viewer

    return show


def unfold(viewer: Any) -> None:
    viewer.page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_all_there_and_fits(show: Open, width: int, scheme: str) -> None:
    viewer = show(width=width, scheme=scheme, offline=False)
    unfold(viewer)
    assert viewer.texts("main h2") == [
        "Outcome", "Curves", "Diagnosis: is there an action bottleneck?", "5 trajectories of step 4",
        "Configuration", "Cost",
    ]  # fmt: skip
    assert viewer.page.evaluate("document.documentElement.scrollWidth") == width
    assert [address for address in viewer.requests if not address.startswith("data:")] == [viewer.url]
    assert len(viewer.texts(".conversation .turn")) >= 5
    # The style is let through by its hash: else the lines would be black on dark.
    strokes = viewer.page.eval_on_selector_all(
        ".chart .line", "all => all.map((e) => getComputedStyle(e).stroke)"
    )
    assert len(set(strokes)) >= 3
    assert viewer.page.eval_on_selector(".chart", "(e) => e.getBoundingClientRect().width") > 250


def test_text_can_be_read_on_its_ground(show: Open) -> None:
    for scheme in ("light", "dark"):
        viewer = show(scheme=scheme)
        unfold(viewer)
        viewer.page.evaluate("document.querySelector('#colours input[value=weights]').click()")
        pairs = viewer.page.evaluate(CONTRAST)
        assert len(pairs) > 100
        assert [found for found in pairs if found["ratio"] < 4.5] == []


CONTRAST = """() => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
    const ground = (one) => {
        for (let at = one; at; at = at.parentElement) {
            const colour = rgb(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return rgb(getComputedStyle(document.documentElement).backgroundColor);
    };
    const found = [];
    for (const one of document.querySelectorAll("main *, header *")) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || one.closest("svg, .unseen, .dim") || !one.checkVisibility()) continue;
        const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        found.push({ ratio, text: one.textContent.slice(0, 40), tag: one.tagName, name: one.className });
    }
    return found;
}"""


def test_roles_are_exactly_what_stands_between_the_tags(show: Open) -> None:
    replies = [
        REPLY,
        "<think> é🙂 done.\n</think><answer> Up</answer>",
        "<think></think><answer>Left||Up</answer>",
    ]
    records = [with_figures(play(replies))]
    viewer = show(records)
    assert test_page.roles_are_right(viewer)
    marked = viewer.page.eval_on_selector_all(".conversation .t.r2", "all => all.map((e) => e.dataset.role)")
    assert set(marked) == {"action"} and len(marked) == records[0]["roles"].count(2)
    looks = viewer.page.eval_on_selector_all(
        ".conversation .t.r2",
        "all => all.map(getComputedStyle).map((style) => style.borderBottomStyle + style.fontWeight)",
    )
    assert set(looks) == {"double700"}
    for change in (test_page.shifted, lambda roles: [*roles[1:], roles[0]], test_page.inverted):
        assert not test_page.roles_are_right(show(replace(records, "roles", change)))


def test_a_heavier_token_is_darker_and_says_its_weight(show: Open) -> None:
    records = [with_figures(play([REPLY] * 3))]
    sampled = [token for token, role in enumerate(records[0]["roles"]) if role]
    for place, token in enumerate(sampled):
        records[0]["weights"][token] = place / 10
    viewer = show(records)
    assert viewer.page.evaluate("document.querySelector('#colours input:checked').value") == "weights"
    levels = []
    for place, token in enumerate(sampled):
        span = viewer.page.query_selector(f'.conversation [data-i="{token}"]')
        levels.append(int(span.get_attribute("class")[-1]))
        role = {1: "reasoning", 2: "action", 3: "other"}[records[0]["roles"][token]]
        assert span.get_attribute("title").startswith(f"{role}, weight {place / 10:g}, energy ")
    assert levels == sorted(levels) and set(levels) == set(range(7))


def test_even_weights_are_no_colour_to_begin_with(show: Open) -> None:
    records = [with_figures(play([REPLY]))]
    records[0]["weights"] = [float(role > 0) for role in records[0]["roles"]]
    viewer = show(records, focus={"alpha": 1.0, "beta": 0.0})
    assert viewer.page.evaluate("document.querySelector('#colours input:checked').value") == "role"


def test_every_token_is_reached_by_keyboard(show: Open) -> None:
    records = [with_figures(play([REPLY] * 2))]
    viewer = show(records)
    stops = viewer.page.query_selector_all(".conversation [tabindex='0']")
    assert len(stops) == 1, "one stop per conversation"
    stops[0].focus()
    token = records[0]["roles"].index(3)  # the first sampled one, a tag
    assert viewer.page.evaluate("document.activeElement.dataset.i") == str(token)
    viewer.press("a")
    token = records[0]["roles"].index(2)
    assert viewer.page.evaluate("document.activeElement.dataset.i") == str(token)
    bar = viewer.page.inner_text("#token")
    weight = float(re.search(r"weight (\S+)", bar)[1].replace("−", "-"))  # type: ignore[index]
    assert weight == pytest.approx(records[0]["weights"][token], rel=1e-3)
    assert "action" in bar and "turn 1" in bar
    viewer.press("ArrowRight")
    assert viewer.page.evaluate("document.activeElement.dataset.i") == str(token + 1)
    viewer.press("Home")  # in the folded system message
    assert viewer.page.evaluate("document.activeElement.dataset.i") == "0"
    viewer.press("Escape")
    assert viewer.page.is_hidden("#token")
    viewer.page.hover(f'.conversation [data-i="{token}"]')
    assert "action" in viewer.page.inner_text("#token")


def test_the_links_lead_to_the_sections(show: Open) -> None:
    viewer = show()
    for name in ("Curves", "Diagnosis", "Trajectories", "Configuration", "Cost"):
        viewer.page.click(f"nav a:text('{name}')")
        assert viewer.page.evaluate("document.querySelector(':target').tagName") == "H2"


def test_without_scripts_all_but_the_conversations_is_there(browser: Any, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    context = browser.new_context(offline=True, java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(Path(write_report(run)["out"]).as_uri())
        text = page.inner_text("body")
        assert "Please allow scripts" in text and "Best success" in text and "Success after, step 4" in text
    finally:
        context.close()


# Hostile text. -------------------------------------------------------------------------------------------

HOSTILE = test_hostile.MARKUP + test_hostile.SIGNS


def test_hostile_text_is_text_everywhere(open_viewer: Open, tmp_path: Path) -> None:
    lines = metrics_of(4)
    lines[4]["evaluation"] = evaluation(0.5) | {HOSTILE: 1.0, "episodes": HOSTILE}
    config = {"model": {"name": HOSTILE.replace("\x00", "")}}
    name = "<img src=x onerror=alert(1)> {{ 7*7 }} {% raw %} \u202e\x07"
    run = make(tmp_path / name, {4: test_hostile.hostile_records()}, lines, **config)
    (run / "environment.json").write_text(
        '{"</table><script>alert(2)</script>\\u202e": "<script>window.hit = 3</script>\\u202e",'
        ' "x": ["<b>", "\\u202e"]}'
    )
    with (run / "metrics.jsonl").open("a") as file:
        file.write("<script>alert(4)</script>\n")
    url = Path(write_report(run, tmp_path / "r.html")["out"]).as_uri()
    viewer = open_viewer(url, offline=False)
    viewer.page.wait_for_selector("#trajectories[data-drawn]")
    unfold(viewer)
    assert viewer.page.evaluate("window.hit") is None
    assert viewer.page.evaluate("document.images.length") == 0
    assert viewer.page.evaluate("document.scripts.length") == 1, "our own; the data has been taken out"
    assert [address for address in viewer.requests if not address.startswith("data:")] == [url]
    assert test_hostile.MARKUP in "".join(viewer.texts(".message.reply .t"))
    assert test_hostile.MARKUP in viewer.page.inner_text(".settings")
    assert viewer.page.inner_text("h1") == "<img src=x onerror=alert(1)> {{ 7*7 }} {% raw %} ‹U+202E›‹U+0007›"
    assert "<script>window.hit = 3</script>‹U+202E›" in viewer.page.inner_text(".pairs")
    raw = viewer.page.evaluate(
        "document.body.innerText + [...document.querySelectorAll('*')].map((one) =>"
        " (one.title || '') + (one.getAttribute('aria-label') || '')).join('')"
    )
    assert (
        re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", raw) == []
    )
    styles = viewer.page.eval_on_selector_all(
        ".conversation .t", "all => [...new Set(all.map((one) => getComputedStyle(one).unicodeBidi))]"
    )
    assert styles == ["isolate"]


def test_a_script_that_is_put_into_the_page_does_not_run(show: Open) -> None:
    viewer = show(small_step(4))
    refused = viewer.page.evaluate(
        """() => {
            try { document.body.innerHTML = "<b>x</b>"; return "taken"; } catch (error) { return error.name; }
        }"""
    )
    assert refused == "TypeError"
    viewer.complaints.clear()  # the browser says that it refused


def test_the_policy_allows_our_script_alone() -> None:
    rules = dict(rule.split(" ", 1) for rule in policy().split("; "))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    for name in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[\w+/=]+'", rules[name])
