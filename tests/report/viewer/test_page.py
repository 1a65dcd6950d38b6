"""The page in a real browser, promises:

1. What is coloured as action is exactly the text between the answer tags: a shift by one or an inversion of
   the roles fails.
2. Every colouring, the filter, the slider, the groups and the keys do what they say; figures are those of the
   record.
3. It works offline and asks nobody for anything.
4. 1,000 trajectories open and step quickly, with only one of them in the document.
"""

import re
import time
from typing import Any

import pytest

from actfocus.report.viewer.collect import page_data
from actfocus.report.viewer.page import render_page
from tests.report.viewer.runs import (
    REPLY,
    play,
    replace,
    small_step,
    tiny_chat,
    with_figures,
    write_run,
)

ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)
THOUGHT = re.compile(r"<think>(.*)</think>", re.DOTALL)


def roles_are_right(viewer) -> bool:
    """Whether reasoning and action are exactly what stands between the tags, in every reply on the page."""
    replies = viewer.page.eval_on_selector_all(
        ".message.reply",
        """all => all.map((reply) => {
            const tokens = [...reply.querySelectorAll(".t:not([data-role=context])")];
            const text = (some) => some.map((one) => one.textContent).join("");
            const of = (role) => text(tokens.filter((one) => one.dataset.role === role));
            const all_text = text([...reply.querySelectorAll(".t")]);
            return {text: all_text, action: of("action"), reasoning: of("reasoning")};
        })""",
    )
    assert replies
    found = [(ANSWER.search(reply["text"]), THOUGHT.search(reply["text"]), reply) for reply in replies]
    return all(
        answer and thought and reply["action"] == answer[1] and reply["reasoning"] == thought[1]
        for answer, thought, reply in found
    )


def shifted(roles: list[int]) -> list[int]:
    return [roles[-1], *roles[:-1]]


def inverted(roles: list[int]) -> list[int]:
    return [{1: 2, 2: 1}.get(role, role) for role in roles]


def test_action_colours_exactly_what_stands_between_the_answer_tags(open_viewer, write_page) -> None:
    replies = [
        REPLY,
        "<think> é🙂 done.\n</think><answer> Up</answer>",
        "<think></think><answer>Left||Up</answer>",
    ]
    records = [with_figures(play(replies))]
    viewer = open_viewer(write_page({1: records}))
    viewer.shows(1, 0)
    assert roles_are_right(viewer)
    # The class that colours agrees with the role that is named.
    actions = viewer.page.eval_on_selector_all("#tokens .t.r2", "all => all.map((one) => one.dataset.role)")
    assert set(actions) == {"action"} and len(actions) == records[0]["roles"].count(2)
    for change in (shifted, lambda roles: [*roles[1:], roles[0]], inverted):
        wrong = open_viewer(write_page({1: replace(records, "roles", change)}))
        wrong.shows(1, 0)
        assert not roles_are_right(wrong)


def test_the_conversation_is_the_text_of_the_record(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    record = small_step(1)[0]
    text = "".join(viewer.texts("#tokens .t")).replace("↵", "")
    assert text == tiny_chat().tokenizer.decode(record["ids"])
    assert len(viewer.texts("#tokens .turn")) == len(record["rewards"])
    assert viewer.texts(".t.dim")[:3] == ["<|system|>", "<|end|>", "<|user|>"]


def test_every_colouring(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    seen = {"role": tuple(viewer.classes())}
    for name in ["weights", "signal", "advantages", "ratio", "to_reference", "entropy", "logprobs", "values"]:
        viewer.page.check(f"#colours input[value={name}]", force=True)
        seen[name] = tuple(viewer.classes())
        levels = {words.split()[-1] for words in seen[name] if "r0" not in words.split()}
        assert all(re.fullmatch(r"[mpn]\d|z", level) for level in levels), name
        assert name == "logprobs" or len(levels) >= 5, name
        title = viewer.page.inner_text(f"#colours label:has([value={name}])")
        assert viewer.page.inner_text("#legend").startswith(title)
    assert len(set(seen.values())) == 9
    # Context is in no colour, and the roles stay marked by their underline.
    assert {words for words in viewer.classes(".message.user .t:not(.dim)")} == {"t r0 none"}
    assert any(words.startswith("t r2 ") for words in seen["weights"])


def test_colours_say_the_size_and_the_sign(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    record = small_step(1)[0]
    viewer.press("4")  # advantage
    sampled = [token for token, role in enumerate(record["roles"]) if role]
    for token in sampled:
        (words,) = viewer.classes(f'[data-i="{token}"]')
        value = record["advantages"][token]
        assert words.split()[-1 - ("current" in words)][0] == ("n" if value < 0 else "p")
    viewer.press("3")  # energy
    levels = [int(viewer.classes(f'[data-i="{token}"]')[0].split("m")[-1]) for token in sampled]
    pairs = sorted(zip((record["signal"][token] for token in sampled), levels, strict=True))
    assert [level for _, level in pairs] == sorted(levels)


def test_all_figures_of_a_token(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    record = small_step(1)[0]
    token = record["roles"].index(2)

    def figures() -> dict[str, str]:
        rows = viewer.page.eval_on_selector_all(
            ".figures > div", "all => all.map((one) => [...one.children].map((cell) => cell.textContent))"
        )
        return dict(rows)

    def check() -> None:
        found = figures()
        assert found["Role"] == "action" and found["Token id"] == str(record["ids"][token])
        names = {
            "Weight": "weights",
            "Energy": "signal",
            "Advantage": "advantages",
            "Entropy": "entropy",
            "Log-prob": "logprobs",
            "Trainer log-prob": "old_logprobs",
            "Reference log-prob": "ref_logprobs",
            "Value": "values",
            "Ratio": "ratio",
        }
        for title, name in names.items():
            value = float(found[title].replace("−", "-"))
            assert value == pytest.approx(record[name][token], rel=6e-4), title
        difference = record["old_logprobs"][token] - record["ref_logprobs"][token]
        assert float(found["To reference"].replace("−", "-")) == pytest.approx(difference, rel=6e-4)

    viewer.page.hover(f'[data-i="{token}"]')
    check()
    viewer.page.hover(f'[data-i="{token + 1}"]')
    assert figures()["Token id"] == str(record["ids"][token + 1])
    viewer.page.focus(f'[data-i="{token}"]')
    check()
    viewer.page.hover('.message.user [data-i="20"]')
    assert figures()["Role"] == "context" and "Weight" not in figures()
    assert "never trained" in viewer.page.inner_text("#details-body")


def test_the_figures_of_a_token_go_with_its_trajectory(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    hint = viewer.page.inner_text("#details-body")
    viewer.press("e")
    assert "Token id" in viewer.page.inner_text("#details-body")
    viewer.press("n")
    viewer.shows(1, 1)
    assert viewer.page.inner_text("#details-body") == hint
    # The next trajectory takes a moment to unpack: the mouse may still cross the last one.
    viewer.page.evaluate(
        """() => {
            document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "n", bubbles: true}));
            const token = document.querySelector('#tokens [data-i="9"]');
            token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
        }"""
    )
    viewer.shows(1, 2)
    assert viewer.page.inner_text("#details-body") == hint
    assert viewer.texts(".t.current") == []


def members(viewer) -> list[str]:
    return viewer.texts(".member:enabled")


def test_filters(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    assert len(members(viewer)) == 6
    select = viewer.page.select_option
    select("#filter-success", "yes")
    assert members(viewer) == ["✓1"]
    assert viewer.page.inner_text("#match-count") == "1 of 6 trajectories"
    select("#filter-success", "no")
    viewer.shows(1, 1)
    assert len(members(viewer)) == 5
    select("#filter-problem", "malformed")
    viewer.shows(1, 3)
    assert members(viewer) == ["○!−0.1"]
    assert "missing" in viewer.page.inner_text(".problem >> nth=0")
    assert viewer.page.is_disabled("#on") and viewer.page.is_disabled("#back")
    select("#filter-problem", "unknown")
    viewer.shows(1, 4)
    select("#filter-success", "yes")
    viewer.shows(1, "none")
    assert "No trajectory" in viewer.page.inner_text("#tokens")
    viewer.page.click("#filter-reset")
    viewer.shows(1, 0)
    assert len(members(viewer)) == 6
    viewer.page.fill("#filter-high", "-0,05")
    viewer.shows(1, 3)
    assert len(members(viewer)) == 2
    viewer.page.fill("#filter-high", "")
    viewer.page.fill("#filter-low", "0.5")
    viewer.shows(1, 0)
    assert len(members(viewer)) == 1
    viewer.page.fill("#filter-low", "much")
    assert viewer.page.get_attribute("#filter-low", "aria-invalid") == "true"
    assert len(members(viewer)) == 6


def test_unknown_success_is_neither_solved_nor_not(open_viewer, write_page) -> None:
    records = [with_figures(play([REPLY], member=member)) for member in range(2)]
    records[1]["success"] = None
    viewer = open_viewer(write_page({1: records}))
    viewer.shows(1, 0)
    assert [mark[0] for mark in members(viewer)] == ["○", "?"]
    viewer.page.select_option("#filter-success", "no")
    assert [mark[0] for mark in members(viewer)] == ["○"]
    viewer.page.select_option("#filter-success", "yes")
    assert members(viewer) == []


def test_an_unknown_return_is_in_no_range(open_viewer, write_page) -> None:
    records = [with_figures(play([REPLY], member=member)) for member in range(2)]
    records[1]["return"] = None
    viewer = open_viewer(write_page({1: records}))
    viewer.shows(1, 0)
    viewer.page.fill("#filter-low", "-5")
    viewer.page.fill("#filter-high", "5")
    assert viewer.page.inner_text("#match-count") == "1 of 2 trajectories"


def test_steps_keep_the_place(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    viewer.page.click(".member >> nth=4")
    viewer.shows(1, 4)
    before = viewer.texts("#tokens .t")
    viewer.page.click("#step-on")
    viewer.shows(2, 4)
    assert viewer.page.inner_text("#step-name") == "2 of 20"
    viewer.page.fill("#step", "2")
    viewer.shows(3, 4)
    assert viewer.page.is_disabled("#step-on")
    assert viewer.page.get_attribute("#step", "aria-valuetext") == "Step 3"
    assert viewer.texts("#tokens .t") == before  # the same game in every step of this run
    viewer.press("3")
    assert "not recorded for this trajectory" in viewer.page.inner_text("#legend")
    assert {words.split()[-1] for words in viewer.classes()} == {"none"}


def test_groups(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    assert viewer.texts(".group h3") == ["Group 0trained", "Group 1"]
    returns = [0.0, -0.1, -0.1]
    mean = sum(returns) / 3
    assert viewer.texts(".group-figures")[0].startswith("mean 0.333 · sd 0.471 · 1 of 3 solved")
    group = viewer.texts(".group-figures")[1]
    assert group.startswith(f"mean −{abs(mean):.4f}"[:9]), group
    assert viewer.page.get_attribute(".member[aria-current]", "data-n") == "0"
    labels = [one.get_attribute("aria-label") for one in viewer.page.query_selector_all(".member")]
    assert labels[0] == "Member 0, return 1, solved"
    assert labels[3] == "Member 0, return −0.1, not solved, malformed reply"
    assert labels[4] == "Member 1, return −0.1, not solved, unknown action"


def test_the_board_stands_beside_its_turn(open_viewer, small, write_page) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    rows = viewer.page.eval_on_selector_all(
        ".turn:first-child .grid tr",
        "all => all.map((row) => [...row.cells].map((cell) => cell.textContent))",
    )
    text = tiny_chat().tokenizer.decode(small_step(1)[0]["ids"])
    shown = text.split("\n")[1:5]
    assert [" ".join(row).replace("·", "_") for row in rows] == shown
    assert "Player" in viewer.page.inner_text(".turn:first-child .board")
    turn, board = (
        viewer.page.locator(f".turn:first-child .{one}").bounding_box() for one in ("reply", "board")
    )
    assert board["x"] >= turn["x"] + turn["width"] - 1


def test_the_board_of_every_game(open_viewer, tmp_path, write_page) -> None:
    from actfocus.config import Config, EnvConfig

    for game, cells in [("sokoban", 36), ("sudoku", 16), ("webshop", 0)]:
        config = Config(steps=20, env=EnvConfig(name=game))
        url = write_page(
            {1: [with_figures(play(["<think></think><answer>x</answer>"], game=game))]}, config=config
        )
        viewer = open_viewer(url)
        viewer.shows(1, 0)
        assert len(viewer.texts(".turn:first-child .grid td")) == cells, game
        if game == "webshop":
            assert "Request:" in viewer.page.inner_text(".turn:first-child .screen")
            assert "search page" in viewer.page.inner_text(".turn:first-child .screen")


def focused(viewer) -> Any:
    return viewer.page.evaluate("document.activeElement.dataset.i ?? document.activeElement.id")


def test_everything_by_keyboard(open_viewer, small) -> None:
    viewer = open_viewer(small)
    viewer.shows(1, 0)
    record = small_step(1)[0]
    first = record["roles"].index(3)
    viewer.page.focus("#on")
    for _ in range(6):
        viewer.press("Tab")
        if focused(viewer) == str(first):
            break
    assert focused(viewer) == str(first), "Tab leads to the tokens"
    viewer.page.evaluate("document.activeElement.blur()")
    viewer.press("e")
    assert focused(viewer) == str(first)
    viewer.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert focused(viewer) == str(first + 1)
    assert "reasoning" in viewer.page.inner_text("#announce")
    outline = viewer.page.eval_on_selector(".t.current", "one => getComputedStyle(one).outlineWidth")
    assert outline == "3px"
    assert viewer.page.locator(".t[tabindex='0']").count() == 1
    viewer.press("ArrowDown")
    below = int(focused(viewer))
    assert below > first + 1
    viewer.press("ArrowUp")
    assert abs(int(focused(viewer)) - first - 1) <= 1
    viewer.press("End")
    end = int(focused(viewer))
    assert record["turns"][end] == 0 and record["turns"][end + 1] == 1
    viewer.press("Home")
    assert focused(viewer) == str(first)
    action = record["roles"].index(2)
    viewer.press("a")
    assert focused(viewer) == str(action)
    viewer.press("a", "A")
    assert focused(viewer) == str(action)
    viewer.press("c")
    assert viewer.page.is_checked("#colours input[value=weights]")
    viewer.press("C", "9")
    assert viewer.page.is_checked("#colours input[value=values]")
    viewer.press("n")
    viewer.shows(1, 1)
    viewer.press(".")
    viewer.shows(2, 1)
    viewer.press(",", "p")
    viewer.shows(1, 0)
    viewer.press("g")
    assert viewer.page.evaluate("document.activeElement.className") == "member"
    viewer.press("Tab", "Enter")
    viewer.shows(1, 1)
    viewer.press("f")
    assert focused(viewer) == "filter-success"
    viewer.page.focus("#filter-low")
    viewer.press("n", "1")  # typed, not obeyed
    viewer.shows(1, 1)
    assert viewer.page.input_value("#filter-low") == "n1"
    viewer.page.focus("#on")
    viewer.press("?")
    assert viewer.page.is_visible("#help")
    keys = viewer.texts("#keys kbd")
    assert set("npcCaAegft?,.") <= set(keys)
    viewer.press("Escape")
    assert not viewer.page.is_visible("#help")


def test_nothing_is_asked_of_the_network(open_viewer, small) -> None:
    viewer = open_viewer(small, offline=False)
    viewer.shows(1, 0)
    viewer.press("n", "c", "t", "t", ".", "a", "?", "Escape")
    viewer.shows(2, 1)
    assert [url for url in viewer.requests if not url.startswith("data:")] == [small]


def test_1000_trajectories_open_and_step_quickly(open_viewer, tmp_path) -> None:
    thought = "<think>" + " The goal is 2 down. Up is a hole." * 6 + "</think><answer> Down</answer>"
    record = with_figures(play([thought] * 5))
    data = page_data(write_run(tmp_path / "r", {1: [record]}))
    (step,) = data["steps"]
    (one,) = step["episodes"]
    episodes = [one | {"group": number // 20, "member": number % 20} for number in range(500)]
    data["steps"] = [step | {"step": number, "episodes": episodes, "recorded": 500} for number in (1, 2)]
    path = tmp_path / "view.html"
    path.write_text(render_page(data), encoding="utf-8")
    assert path.stat().st_size > 5e6
    url = path.as_uri()
    began = time.perf_counter()
    viewer = open_viewer(url)
    viewer.shows(1, 0)
    assert time.perf_counter() - began < 5
    for key, shown in [(".", (2, 0)), ("n", (2, 1)), (",", (1, 1)), ("p", (1, 0))]:
        began = time.perf_counter()
        viewer.press(key)
        viewer.shows(*shown)
        assert time.perf_counter() - began < 1
    viewer.page.select_option("#filter-problem", "none")
    assert len(viewer.texts(".member")) == 500
    assert len(viewer.texts("#tokens .t")) == len(record["ids"])
