"""The text protocol, tried on a toy game whose every move is known."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.envs.protocol import FORMAT_PENALTY, REPLY_TAGS, TextEnv, parse_reply

TAGLESS = st.text().filter(lambda text: not any(tag in text for tag in REPLY_TAGS))
SPACE = st.sampled_from(["", " ", "\n", "\t\r\n", "\u00a0", "\u2003 "])
# Pieces that make tags likely, whole and in halves.
SOUP = st.lists(
    st.sampled_from(
        [*REPLY_TAGS, "<think", ">", "</", "<THINK>", "||", "left", " ", "\n", "é", "\x1b[0m", "\U0001f600"]
    )
    | st.characters(),
    max_size=14,
).map("".join)


def reply(answer: str, reasoning: str = "hm") -> str:
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


# The parser. -------------------------------------------------------------------------------------------


def split_by_hand(text: str) -> tuple[str, str] | None:
    """Reasoning and answer by cutting at each tag in turn: no pattern, no positions."""
    if any(text.count(tag) != 1 for tag in REPLY_TAGS):
        return None
    rest, pieces = text, []
    for tag in REPLY_TAGS:
        piece, found, rest = rest.partition(tag)
        if not found:
            return None
        pieces.append(piece)
    before, reasoning, between, answer = pieces
    return None if (before + between + rest).strip() else (reasoning, answer)


@settings(max_examples=800)
@given(SOUP)
def test_spans_are_exactly_the_text_between_the_tags(text: str) -> None:
    parsed, expected = parse_reply(text), split_by_hand(text)
    if expected is None:
        assert (parsed.reasoning, parsed.action, parsed.actions) == (None, None, ())
        assert parsed.error
    else:
        assert parsed.reasoning and parsed.action
        assert (text[slice(*parsed.reasoning)], text[slice(*parsed.action)]) == expected


@given(SPACE, TAGLESS, SPACE, TAGLESS, SPACE)
def test_well_formed_replies_parse(
    before: str, reasoning: str, between: str, answer: str, after: str
) -> None:
    start = f"{before}<think>"
    middle = f"{start}{reasoning}</think>{between}<answer>"
    parsed = parse_reply(f"{middle}{answer}</answer>{after}")
    assert parsed.reasoning == (len(start), len(start) + len(reasoning))
    assert parsed.action == (len(middle), len(middle) + len(answer))
    assert list(parsed.actions) == [part.strip() for part in answer.split("||") if part.strip()]
    assert (parsed.error is None) == bool(parsed.actions)


@given(TAGLESS, TAGLESS, st.data())
def test_every_truncation_is_malformed(reasoning: str, answer: str, data: st.DataObject) -> None:
    text = reply(answer, reasoning)
    parsed = parse_reply(text[: data.draw(st.integers(0, len(text) - 1))])
    assert parsed.action is None
    assert parsed.error and "</answer>" in parsed.error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "missing <think> </think> <answer> </answer>"),
        ("left", "missing <think> </think> <answer> </answer>"),
        ("<think>a<answer>left</answer>", "missing </think>"),
        ("<THINK>a</THINK><answer>left</answer>", "missing <think> </think>"),
        (reply("left") * 2, "repeated <think> </think> <answer> </answer>"),
        (reply("<answer>left</answer>"), "repeated <answer> </answer>"),
        (reply("left", reasoning="a </think> b"), "repeated </think>"),
        ("<answer>left</answer><think>a</think>", "tags out of order"),
        ("<think>a<answer></think>left</answer>", "tags out of order"),
        ("so: " + reply("left"), "text outside the tags"),
        ("<think>a</think> so: <answer>left</answer>", "text outside the tags"),
        (reply("left") + "<|im_end|>", "text outside the tags"),
        (reply(""), "empty answer"),
        (reply(" || \n ||"), "empty answer"),
        (reply("left", reasoning=""), None),
        (reply("  Left||\u2003UP \n"), None),
    ],
)
def test_the_error_says_what_is_wrong(text: str, error: str | None) -> None:
    assert parse_reply(text).error == error


def test_an_empty_answer_keeps_its_spans() -> None:
    parsed = parse_reply("<think></think><answer></answer>")
    assert (parsed.reasoning, parsed.action, parsed.actions) == ((7, 7), (23, 23), ())


def test_a_huge_reply_parses_in_no_time() -> None:
    assert parse_reply("<" * 1_000_000).error
    assert len(parse_reply(reply("left||" * 200_000)).actions) == 200_000


# Turns and budgets. ------------------------------------------------------------------------------------


class Toy(TextEnv):
    """`win` pays 1 and ends the game, `lose` ends it, `add` pays 0.25, `luck` pays a draw of chance."""

    rules = "A toy."

    def __init__(self, *, turns: int = 3, actions_per_turn: int = 2, actions_per_episode: int = 5) -> None:
        super().__init__(
            turns=turns, actions_per_turn=actions_per_turn, actions_per_episode=actions_per_episode
        )

    def new_level(self, rng: np.random.Generator) -> None:
        self.level = int(rng.integers(1000))

    def picture(self) -> str:
        return f"level {self.level}"

    def read_action(self, text: str) -> str | None:
        return text.lower() if text.lower() in ("win", "lose", "add", "luck") else None

    def play(self, action: str) -> tuple[float, bool]:
        self.success = action == "win"
        gain = {"win": 1.0, "add": 0.25, "luck": float(self.chance.random())}.get(action, 0.0)
        return gain, action in ("win", "lose")

    def expert_actions(self) -> list[str]:
        return ["win"]

    def random_action(self, rng: np.random.Generator) -> str:
        return "add"

    def remarks(self, rng: np.random.Generator) -> list[str]:
        return []


def started(**settings: int) -> Toy:
    env = Toy(**settings)
    env.reset(seed=0)
    return env


def outcome(env: Toy, text: str) -> tuple[float, bool, bool]:
    return env.step(text)[1:4]


def test_valid_actions_play_in_order_and_case_does_not_matter() -> None:
    env = started()
    _, reward, terminated, truncated, info = env.step(reply("ADD || Win"))
    assert (reward, terminated, truncated) == (1.25, True, False)
    assert info == {"success": True, "problem": None, "played": ["ADD", "Win"], "figures": {}}


@pytest.mark.parametrize(
    ("text", "reward", "played"),
    [
        ("add", FORMAT_PENALTY, []),
        (reply(""), FORMAT_PENALTY, []),
        (reply("fly"), FORMAT_PENALTY, []),
        (reply("fly || swim"), FORMAT_PENALTY, []),
        (reply("fly || add"), FORMAT_PENALTY + 0.25, ["add"]),
        (reply("add || fly"), FORMAT_PENALTY + 0.25, ["add"]),
        (reply("add || add || add"), 0.5, ["add", "add"]),
        (reply("add || add || fly"), 0.5, ["add", "add"]),
        (reply("lose || fly"), 0.0, ["lose"]),
        (reply("|| add ||||"), 0.25, ["add"]),
    ],
)
def test_one_penalty_at_most_and_the_valid_part_plays(text: str, reward: float, played: list[str]) -> None:
    env = started()
    _, actual, _, _, info = env.step(text)
    assert actual == pytest.approx(reward)
    assert info["played"] == played
    assert (info["problem"] is not None) == (reward not in (0.0, 0.25, 0.5))
    assert env.turn == 2
    assert env.actions_left == 5 - len(played)


def test_the_turns_run_out() -> None:
    env = started(turns=2)
    assert outcome(env, "nonsense") == (FORMAT_PENALTY, False, False)
    assert outcome(env, "nonsense") == (FORMAT_PENALTY, False, True)


def test_the_actions_run_out_amid_an_answer_without_penalty() -> None:
    env = started(turns=9, actions_per_turn=4, actions_per_episode=5)
    assert outcome(env, reply("add || add || add")) == (0.75, False, False)
    assert outcome(env, reply("add || add || add || fly")) == (0.5, False, True)


def test_an_end_at_the_last_action_is_no_truncation() -> None:
    assert outcome(started(turns=1), reply("win")) == (1.0, True, False)
    assert outcome(started(actions_per_episode=1), reply("lose")) == (0.0, True, False)


@pytest.mark.parametrize("last", ["win", "lose", "fly"])
def test_step_after_the_end_raises(last: str) -> None:
    env = started(turns=1)
    env.step(reply(last))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(reply("add"))
    env.reset()
    env.step(reply("add"))


def test_step_before_reset_raises() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        Toy().step(reply("add"))


@given(
    st.lists(
        st.sampled_from([reply("add"), reply("add||add"), reply("fly||add"), "no", reply("")]), max_size=12
    )
)
def test_any_game_keeps_its_budgets(texts: list[str]) -> None:
    env = started(turns=6, actions_per_turn=2, actions_per_episode=7)
    used = 0
    for turn, text in enumerate(texts, start=1):
        used = min(used + text.count("add"), 7)
        _, _, _, truncated, _ = env.step(text)
        assert env.actions_left == 7 - used
        assert truncated == (turn == 6 or used == 7)
        if truncated:
            break


def test_budgets_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="actions_per_turn must be at least 1, got 0"):
        Toy(actions_per_turn=0)


# What the player is told. ------------------------------------------------------------------------------


def test_observation_tells_turn_state_actions_left_and_from_turn_two_the_reward() -> None:
    env = Toy()
    first, _ = env.reset(seed=0)
    assert first.startswith(f"Turn 1 of 3.\nlevel {env.level}\nActions left: 5.")
    assert "Reward" not in first
    second = env.step(reply("add || fly"))[0]
    assert second.startswith("Turn 2 of 3. Reward of the last turn: 0.15.")
    assert "Actions left: 4." in second


def test_system_prompt_tells_the_format_and_the_limit() -> None:
    assert "Up to 2 actions" in Toy().system_prompt
    assert "Up to" not in Toy(actions_per_turn=1).system_prompt
    for tag in REPLY_TAGS:
        assert tag in Toy().system_prompt


# Seeds. ------------------------------------------------------------------------------------------------


def lucky(env: Toy, **reset: Any) -> tuple[int, float]:
    env.reset(**reset)
    return env.level, outcome(env, reply("luck"))[0]


def test_a_group_shares_the_level_and_not_the_luck() -> None:
    drawn = [lucky(Toy(), seed=7, options={"chance_seed": member}) for member in range(8)]
    assert len({level for level, _ in drawn}) == 1
    assert len({luck for _, luck in drawn}) == 8


def test_seeds_fix_everything() -> None:
    assert lucky(Toy(), seed=3) == lucky(Toy(), seed=3)
    options = {"chance_seed": 5}
    assert lucky(Toy(), seed=3, options=options) == lucky(Toy(), seed=3, options=options)


def test_later_levels_do_not_depend_on_who_seeds_the_chance() -> None:
    one, other = Toy(), Toy()
    one.reset(seed=1)
    other.reset(seed=1, options={"chance_seed": 9})
    assert [lucky(one)[0] for _ in range(5)] == [lucky(other)[0] for _ in range(5)]


def test_equal_seeds_for_level_and_chance_do_not_share_a_stream() -> None:
    """Otherwise the slips would replay the very draws that made the level."""
    env = Toy()
    env.reset(seed=11, options={"chance_seed": 11})
    assert env.chance.random() != np.random.default_rng(11).random()
