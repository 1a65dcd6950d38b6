"""Each of the four games in TRL: one update of the model that is shipped for it, on episodes it plays itself.

Promises: some of what it writes are actions; the action tokens are those that write between <answer> and
</answer> of a reply, the reasoning tokens those between <think> and </think>; what the game says weighs
nothing; the parameters move. Where the tags stand is read here from the text of the whole episode.
"""

import re
from typing import Any

import pytest
import torch

from actfocus.focus import Role
from actfocus.integrations.trl import EnvironmentRollout
from actfocus.models.registry import tiny_path
from tests.integrations.trl.scripted import parameters, trainer

GAMES = {
    "frozen-lake": {"context": 600, "response": 100, "turns": 2, "success_rate": 1.0},
    "sokoban": {"context": 900, "response": 128, "turns": 2},
    "sudoku": {"context": 1200, "response": 160, "turns": 3},
    "webshop": {"context": 1800, "response": 128, "turns": 3},
}
REPLY = re.compile(r"(?:^|(?<=<\|assistant\|>)).*?(?=<\|end\|>|$)", re.DOTALL)
TAGS = re.compile(
    r"\s*<think>((?:(?!</?think>|</?answer>).)*)</think>\s*<answer>((?:(?!<).)*)</answer>\s*", re.DOTALL
)


@pytest.fixture(scope="module", params=GAMES)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer after its update, and whether a parameter has another value than before."""
    game = request.param
    rollout = EnvironmentRollout(game, **GAMES[game])
    made = trainer(tmp_path_factory.mktemp(game), model=str(tiny_path(game)), rollout_func=rollout)
    made.train_dataset = rollout.dataset(4)
    before = parameters(made)
    made.train()
    after = parameters(made)
    return made, any(not torch.equal(before[name], after[name]) for name in before)


def rows(made: Any) -> list[tuple[list[str], list[int], list[float]]]:
    """The text of each token of each episode, its role and its weight."""
    found = []
    for batch in made._buffered_inputs:
        for ids, mask, roles, weights in zip(
            *(
                batch[key].tolist()
                for key in ("completion_ids", "completion_mask", "focus_roles", "focus_weights")
            ),
            strict=True,
        ):
            count = sum(mask)
            pieces = [made._tokenizer.decode([i]) for i in ids[:count]]
            assert "".join(pieces) == made._tokenizer.decode(ids[:count])
            assert not any(roles[count:]) and not any(weights[count:])
            found.append((pieces, roles[:count], weights[:count]))
    return found


def expected(pieces: list[str]) -> list[Role | None]:
    """The role of each token; None for the end of a turn, which the model writes or the template."""
    text = "".join(pieces)
    of_characters: list[Role | None] = [Role.CONTEXT] * len(text)
    for reply in REPLY.finditer(text):
        of_characters[slice(*reply.span())] = [Role.OTHER] * len(reply[0])
        if reply.end() < len(text):
            of_characters[reply.end()] = None
        if tags := TAGS.fullmatch(reply[0]):
            for group, role in ((1, Role.REASONING), (2, Role.ACTION)):
                span = slice(reply.start() + tags.start(group), reply.start() + tags.end(group))
                of_characters[span] = [role] * len(tags[group])
    found, at = [], 0
    for piece in pieces:
        touched = of_characters[at : at + len(piece)]
        at += len(piece)
        decides = [role for role in (Role.ACTION, Role.REASONING) if role in touched]
        found.append(decides[0] if decides else touched[0])
    return found


def agree(roles: list[int], wanted: list[Role | None]) -> bool:
    ends = (Role.CONTEXT, Role.OTHER)
    return all(
        role in ends if want is None else role == want for role, want in zip(roles, wanted, strict=True)
    )


def test_the_actions_of_the_game_are_what_is_weighed_up(played: Any) -> None:
    made, _ = played
    logged = made.state.log_history[0]
    assert logged["focus/action_share"] > 0 and logged["focus/action_weight"] > 1
    episodes = rows(made)
    assert len(episodes) == 8
    for pieces, roles, weights in episodes:
        wanted = expected(pieces)
        assert agree(roles, wanted)
        of_role = {role: {w for r, w in zip(roles, weights, strict=True) if r == role} for role in Role}
        assert of_role[Role.CONTEXT] <= {0.0} and all(1 < weight < 1.5 for weight in of_role[Role.ACTION])
        assert list(of_role[Role.REASONING] | of_role[Role.OTHER]) == pytest.approx([0.1])
    # Observations and well-formed replies there are, and wrong roles would show.
    assert any(Role.CONTEXT in roles for _, roles, _ in episodes)
    acting = [(pieces, roles) for pieces, roles, _ in episodes if Role.ACTION in roles]
    assert len(acting) > 4
    order = [Role.CONTEXT, Role.ACTION, Role.REASONING, Role.OTHER]
    for pieces, roles in acting:
        assert not agree([Role.OTHER, *roles[:-1]], expected(pieces))
        assert not agree([order[role] for role in roles], expected(pieces))


def test_advantages_are_weighted_and_move_the_parameters(played: Any) -> None:
    made, moved = played
    for batch in made._buffered_inputs:
        assert not batch["advantages"][batch["focus_roles"] == Role.CONTEXT].any()
    logged = made.state.log_history[0]
    assert logged["frac_reward_zero_std"] < 1  # else there would be nothing to learn
    assert logged["grad_norm"] > 0 and moved
