"""A person at the terminal: scripted input, and what the screen shows."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actfocus.cli.play import play
from actfocus.envs import TextEnv, make_env

CERTAIN = {"success_rate": 1.0}


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*lines: str, name: str = "frozen-lake", seed: int | None = 0, **settings: Any) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        play(name, seed=seed, settings=settings or CERTAIN)
        return capsys.readouterr().out

    return run


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_expert_wins(screen: Any) -> None:
    env = make_env("frozen-lake", **CERTAIN)
    env.reset(seed=0)
    plan = env.expert_actions()
    output = screen(" || ".join(plan[:2]), *plan[2:])
    assert "Solved! Return 1." in output
    assert f"Played: {plan[0]}, {plan[1]}. Reward 0, so far 0." in output
    assert "turns left 5, actions left 10" in output
    assert "turns left 4, actions left 8" in output
    assert "_ √ _ _" in output


def test_hints_lead_to_the_goal(screen: Any) -> None:
    env = make_env("frozen-lake", **CERTAIN)
    env.reset(seed=0)
    plan = env.expert_actions()
    lines: list[str] = []
    for action in plan:
        lines += ["hint", action]
    output = screen(*lines)
    assert re.findall(r"^> (\w+)$", output, re.MULTILINE) == plan
    assert "Solved!" in output


class Mute(TextEnv):
    """The least that a game can be: one word wins, and nobody demonstrates it."""

    rules = "Say the word."

    def __init__(self) -> None:
        super().__init__(turns=3, actions_per_turn=1, actions_per_episode=3)

    def new_level(self, rng: np.random.Generator) -> None:
        self.word = "please"

    def picture(self) -> str:
        return "A closed door."

    def read_action(self, text: str) -> str:
        return text

    def play(self, action: str) -> tuple[float, bool]:
        self.success = np.bool_(action == self.word)  # type: ignore[assignment]
        return np.float32(self.success), bool(self.success)  # type: ignore[return-value]


MUTE = f"{__name__}:Mute"


def test_without_an_expert_there_is_no_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hint\nopen\nplease\n"))
    result = play(MUTE, settings={}, seed=0)
    output = capsys.readouterr().out
    assert "There is no hint: Mute cannot be demonstrated" in output
    assert "Played: open." in output and "Solved!" in output, "the game goes on"
    # JSON does not know NumPy's numbers.
    assert json.loads(json.dumps(result)) == {
        "seed": 0,
        "success": True,
        "return": 1.0,
        "turns": 2,
        "finished": True,
    }


def test_the_budget_runs_out(screen: Any) -> None:
    output = screen(*["jump"] * 5)
    assert output.count("Problem: unknown action 'jump'") == 5
    assert "Not solved. The budget is spent. Return -0.5." in output


def test_a_hole_ends_the_game_within_the_budget(screen: Any) -> None:
    output = screen("left || up", "right")  # To (3,0), (2,0), and into the hole at (2,1).
    assert "_ X _ _" in output
    assert "Not solved. Return 0." in output


def test_whole_replies_are_taken_as_they_are(screen: Any) -> None:
    output = screen("<think>so</think><answer>left</answer>", "<answer>left</answer>", "quit")
    assert "Played: left." in output
    assert "Problem: missing <think> </think>" in output


def test_an_empty_line_costs_nothing(screen: Any) -> None:
    assert screen("", "  ", "quit").count("turns left") == 1


def test_help_tells_the_rules(screen: Any) -> None:
    assert flat(screen("help", "quit")).count("Cross a frozen lake") == 2


@pytest.mark.parametrize("lines", [["quit"], ["QUIT"], []])
def test_leaving_is_polite(screen: Any, lines: list[str]) -> None:
    output = screen(*lines)
    assert output.rstrip().endswith("Goodbye.")
    assert "Solved" not in output


def test_control_c_leaves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    result = play("frozen-lake", seed=0, settings=CERTAIN)
    assert "Goodbye." in capsys.readouterr().out
    assert result == {"seed": 0, "success": False, "return": 0.0, "turns": 0, "finished": False}


def test_the_result_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("jump\nleft || up\nright\n"))
    result = play("frozen-lake", seed=0, settings=CERTAIN)
    assert result == {"seed": 0, "success": False, "return": -0.1, "turns": 3, "finished": True}


def test_the_seed_is_shown_and_repeats_the_level(screen: Any) -> None:
    output = screen("quit", seed=None)
    (seed,) = re.findall(r"The level of seed (\d+)", output)
    assert screen("quit", seed=int(seed)) == output


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\x1b]0;title\x07", "\u202eevil", "\x9b31m", "\udce9", "a\x00b"]
)
def test_hostile_text_is_not_emitted_raw(screen: Any, hostile: str) -> None:
    output = screen(hostile, f"<think></think><answer>{hostile}</answer>", "quit")
    assert output.count("Problem: unknown action") == 2
    assert all(character.isprintable() or character == "\n" for character in output)


def test_a_hostile_game_is_not_emitted_raw(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actfocus.envs.frozen_lake.FrozenLake.picture", lambda self: "\x1b[2J[bold]lake")
    assert r"\x1b[2J[bold]lake" in screen("quit")


def test_markup_stays_text(screen: Any) -> None:
    assert "unknown action '[red]left[/red]'" in screen("[red]left[/red]", "quit")


@pytest.mark.parametrize("name", ["sokoban", "sudoku"])
def test_the_other_games_play_too(screen: Any, name: str) -> None:
    env = make_env(name)
    env.reset(seed=1)
    plan = env.expert_actions()
    lines = [" || ".join(plan[i : i + 2]) for i in range(0, len(plan), 2)]
    assert "Solved!" in screen(*lines, name=name, seed=1, render_mode=None)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shop keeps its search index there."""
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path))


def test_a_visit_to_the_shop(screen: Any, own_cache: None) -> None:
    env = make_env("webshop")
    env.reset(seed=1)
    search, opening, *choices, buy = env.expert_actions()
    assert search.startswith("search[") and len(choices) == 2 and buy == "click[buy now]"
    words, product = search[len("search[") : -1], opening[len("click[") : -1]
    values = [choice[len("click[") : -1] for choice in choices]
    # As a person types: bare words, buttons in another case; and twice what the page does not offer.
    output = screen(words, "buy now", product, values[0].upper(), "search[again]", choices[1], "Buy Now",
                    name="webshop", seed=1, render_mode=None)  # fmt: skip
    pages = re.split(r"^> ", output, flags=re.MULTILINE)
    assert "This is the search page." in pages[0] and "Action: search[words]" in pages[0]
    assert f'found for "{words}", page 1 of' in flat(pages[1].replace("│", ""))
    assert f"[{product}]" in pages[1]
    assert "Problem: unknown action 'click[buy now]'" in pages[2]
    assert "Played: nothing. Reward -0.1, so far -0.1." in pages[2] and f"[{product}]" in pages[2]
    assert f"{product}: " in pages[3] and "Chosen: nothing" in pages[3] and "[buy now]" in pages[3]
    assert re.search(rf"Chosen: \w+: {values[0]} ", pages[4]) and "Problem" not in pages[4]
    assert "Problem: unknown action 'search[again]'" in pages[5]
    assert re.search(rf"Chosen: \w+: {values[0]}, \w+: {values[1]} ", pages[6])
    assert "Bought: " in pages[7] and "Score 1.00" in pages[7]
    assert "Solved! Return 0.8." in pages[7]
    assert len(pages) == 8


def test_a_hint_of_the_shop_can_be_typed_as_it_is(screen: Any, own_cache: None) -> None:
    env = make_env("webshop")
    env.reset(seed=2)
    plan = env.expert_actions()
    output = screen(*plan, name="webshop", seed=2, render_mode=None)
    assert "Problem" not in output and "Solved! Return 1." in output
