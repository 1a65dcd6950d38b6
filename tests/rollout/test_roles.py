"""From sampled tokens to roles, promises:

1. The ACTION tokens of a reply decode to exactly the text between the answer tags, the REASONING tokens to
   that between the think tags; tags and end of turn are OTHER; all of a malformed reply is OTHER.
2. Nothing but prompts, observations and template is CONTEXT, and nothing of a reply is.
3. A token more, a token less or roles turned round would be noticed by what is tested here.
"""

import pytest

from actfocus.config import EnvConfig, WarmstartConfig
from actfocus.focus.roles import Role
from actfocus.rollout.sampler import Limits, read_reply
from actfocus.training.demonstrations import demonstration, demonstration_texts
from tests.rollout.scripts import frozen_lake, play_scripts

LIMITS = Limits(3000, 200)
# (reply, reasoning, action); None: malformed.
REPLIES = [
    ("<think> goal is 2 down</think><answer> Down</answer>", " goal is 2 down", " Down"),
    (
        "<think>\nhm 🙂\n</think>\n<answer>Left || Down</answer>\n",
        "\nhm 🙂\n",
        "Left || Down",
    ),
    ("<think></think><answer>Up</answer>", "", "Up"),
    ("<think>a</think><answer></answer>", "a", ""),
    ("<think>上へ é</think><answer> 🙂 Down</answer>", "上へ é", " 🙂 Down"),
    ("<think>a\ufffd</think><answer>\ufffdDown\ufffd</answer>", "a\ufffd", "\ufffdDown\ufffd"),
    ("<think>a<answer> Down</answer>", None, None),
    ("Down", None, None),
    ("<think>a</think><answer>Down", None, None),
    ("<answer>Down</answer><think>a</think>", None, None),
    ("<think>a</think><answer>Down</answer><answer>Up</answer>", None, None),
    ("<think>a</think>well<answer>Down</answer>", None, None),
]


def written(chat, ids, roles, role):
    return chat.tokenizer.decode([i for i, r in zip(ids, roles, strict=True) if r == role])


def check_reply(chat, ids, roles, reasoning, action):
    assert len(ids) == len(roles)
    assert Role.CONTEXT not in roles
    if action is None:
        assert set(roles) == {Role.OTHER}
        return
    assert written(chat, ids, roles, Role.REASONING) == reasoning
    assert written(chat, ids, roles, Role.ACTION) == action
    tokens = [chat.tokenizer.decode([i]) for i, r in zip(ids, roles, strict=True) if r == Role.OTHER]
    assert [t for t in tokens if t.strip()][:4] == ["<think>", "</think>", "<answer>", "</answer>"]


@pytest.mark.parametrize("reply, reasoning, action", REPLIES)
@pytest.mark.parametrize("kind", ["chat", "chatml"])
def test_a_replys_tokens_have_the_roles_of_what_they_write(reply, reasoning, action, kind, request):
    chat = request.getfixturevalue(kind)
    ids = chat.encode_reply(reply)
    for given in (ids, ids[:-1]):
        text, roles = read_reply(chat, given)
        assert text == reply
        check_reply(chat, given, roles, reasoning, action)


def test_stray_bytes_beside_the_tags_leave_the_tags_other(chat):
    stray = chat.tokenizer.encode("🙂", add_special_tokens=False)[-1]
    think, thought, answer, answered = chat.tokenizer.encode(
        "<think></think><answer></answer>", add_special_tokens=False
    )
    reply = [think, stray, thought, answer, stray, stray, answered]
    R, A, X = Role.REASONING, Role.ACTION, Role.OTHER
    assert read_reply(chat, reply).roles == [X, R, X, X, A, A, X]


def test_a_token_that_writes_tag_and_action_is_an_action(chat):
    """A tokenizer without tags of its own: pieces of the tags stand in tokens with their neighbours."""

    class Merged:
        def decode(self, ids):
            pieces = ["<think>", "a</", "think><answer", ">Down", "</answer>"]
            ends = [sum(map(len, pieces[: k + 1])) for k in range(len(pieces))]
            return "".join(pieces), list(zip([0, *ends], ends, strict=False))

    roles = read_reply(Merged(), [0, 1, 2, 3, 4]).roles
    assert roles == [Role.OTHER, Role.REASONING, Role.OTHER, Role.ACTION, Role.OTHER]


def segments(record):
    """Runs of (is context, ids, roles)."""
    runs = []
    for token, role in zip(record.ids, record.roles, strict=True):
        context = role == Role.CONTEXT
        if not runs or runs[-1][0] != context:
            runs.append((context, [], []))
        runs[-1][1].append(token)
        runs[-1][2].append(role)
    return runs


@pytest.mark.parametrize("kind", ["chat", "chatml"])
def test_scripted_episodes_carry_the_roles_of_their_replies(kind, monkeypatch, request):
    chat = request.getfixturevalue(kind)
    triples = [REPLIES[k : k + 3] for k in range(0, len(REPLIES), 3)]
    scripts = [[chat.encode_reply(reply) for reply, *_ in triple] for triple in triples]
    records = play_scripts(chat, scripts, frozen_lake, LIMITS, monkeypatch)
    for record, script, triple in zip(records, scripts, triples, strict=True):
        runs = segments(record)
        played = len(record.rewards)
        assert [context for context, *_ in runs] == [True, False] * played
        assert runs[0][1] == chat.opening(*opening_of(record))
        for turn in range(played):
            _, ids, roles = runs[2 * turn + 1]
            assert ids == script[turn]
            check_reply(chat, ids, roles, *triple[turn][1:])
            assert (record.problems[turn] is None) == (triple[turn][2] in (" Down", "Left || Down", "Up"))
        assert record.turns == sorted(record.turns) and set(record.turns) == set(range(played))


def opening_of(record):
    env = frozen_lake()
    observation, _ = env.reset(
        seed=record.start.level_seed, options={"chance_seed": record.start.chance_seed}
    )
    return env.system_prompt, observation


@pytest.mark.parametrize("game", ["frozen-lake", "sokoban", "sudoku"])
def test_demonstrations_carry_the_roles_that_sampled_tokens_would(chat, game):
    config = WarmstartConfig(env=EnvConfig(name=game))
    for episode in range(3):
        record = demonstration(config, chat, episode)
        replies = [run for run in segments(record) if not run[0]]
        texts = demonstration_texts(config, episode)
        assert len(replies) == len(texts)
        for (_, ids, roles), (_, reply) in zip(replies, texts, strict=True):
            reasoning, _, action = reply.partition("</think><answer>")
            check_reply(chat, ids, roles, reasoning.removeprefix("<think>"), action.removesuffix("</answer>"))
            assert ids[-1] in chat.end_ids and roles[-1] == Role.OTHER


def test_the_roles_of_one_reply_spelled_out(chat):
    """A figure, so that a shift by one or an inversion is seen at once."""
    ids = chat.encode_reply("<think> a</think><answer> Down</answer>")
    tokens = [chat.tokenizer.decode([i]) for i in ids]
    assert tokens == ["<think>", " a", "</think>", "<answer>", " Down", "</answer>", "<|end|>"]
    R, A, X = Role.REASONING, Role.ACTION, Role.OTHER
    assert read_reply(chat, ids).roles == [X, R, X, X, A, X, X]
