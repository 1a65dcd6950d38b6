"""From a shop's pages to roles, promises:

1. In an episode that is played through the sampler, ACTION tokens write exactly what stands between the
   answer tags, REASONING tokens what stands between the think tags, and no other token of a reply is either.
2. All of a page, the request and the rules are CONTEXT, and nothing of a reply is: actions that a page shows
   (`search[words]`, buttons) are never trained.
3. A shift by one, an inversion, or a page taken for a reply is noticed by what is tested here.
"""

from dataclasses import replace

import pytest

from actfocus.envs import make_env
from actfocus.focus.roles import Role
from actfocus.models.chat import Chat
from actfocus.rollout.sampler import Limits
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Trajectory
from tests.fixtures import CHATML, fresh_tokenizer
from tests.rollout.scripts import play_scripts

LIMITS = Limits(8192, 400)
MALFORMED = "<think>I only think.</think>click[buy now]"


@pytest.fixture(scope="module", params=["plain", "chatml"])
def chat(request):
    tokenizer = fresh_tokenizer()
    if request.param == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = CHATML
    return Chat(tokenizer)


def replies_of(level_seed, chance_seed):
    """(reply, reasoning, action) of an episode of the expert's, with a detour and two bad turns."""
    env = make_env("webshop")
    env.reset(seed=level_seed, options={"chance_seed": chance_seed})
    search, *rest = env.expert_actions()
    wanted = [
        ("I look for it. 🙂", f" {search}"),
        (None, MALFORMED),
        *((f"\nThe page offers {action}\n", action) for action in rest[:1]),
        ("search[words] is not offered here", "SEARCH[words]"),
        ("", "click[features]"),
        (" [buy now] is on the page before ", "\tclick[< prev]\n"),
        *((" well ", f" {action} ") for action in rest[1:]),
    ]
    return [
        (text, None, None) if reasoning is None else (_reply(reasoning, text), reasoning, text)
        for reasoning, text in wanted
    ]


def _reply(reasoning, action):
    return f"<think>{reasoning}</think><answer>{action}</answer>"


def observations_of(level_seed, chance_seed, replies):
    env = make_env("webshop")
    texts = [env.reset(seed=level_seed, options={"chance_seed": chance_seed})[0]]
    texts += [env.step(reply)[0] for reply, *_ in replies]
    return env.system_prompt, texts[:-1]  # the receipt comes after the last reply


class Episode:
    """A played episode, and what its texts were."""

    def __init__(self, chat, monkeypatch):
        self.chat = chat
        start = training_starts(0, 0, 1, 1)[0]
        seeds = start.level_seed, start.chance_seed
        self.replies = replies_of(*seeds)
        self.system, self.observations = observations_of(*seeds, self.replies)
        script = [chat.encode_reply(reply) for reply, *_ in self.replies]
        (self.record,) = play_scripts(chat, [script], lambda: make_env("webshop"), LIMITS, monkeypatch)

    def text(self, ids):
        return self.chat.tokenizer.decode(ids)

    def runs(self, record: Trajectory):
        """Per turn: (ids of the context, ids of the reply, roles of the reply), told apart by the texts."""
        position, found = 0, []
        for turn, (reply, *_) in enumerate(self.replies):
            before = (
                self.chat.opening(self.system, self.observations[0])
                if turn == 0
                else self.chat.next_turn(self.observations[turn], reply_ended=True)
            )
            ids = self.chat.encode_reply(reply)
            middle, end = position + len(before), position + len(before) + len(ids)
            assert record.ids[position:middle] == before
            assert record.ids[middle:end] == ids
            found.append((record.roles[position:middle], ids, record.roles[middle:end]))
            position = end
        assert position == len(record.ids) == len(record.roles)
        return found

    def check(self, record: Trajectory):
        """Raises AssertionError where a token has not the role of what it writes."""
        for (before, ids, roles), (_, reasoning, action) in zip(self.runs(record), self.replies, strict=True):
            assert set(before) == {Role.CONTEXT}
            assert Role.CONTEXT not in roles
            for role, text in [(Role.REASONING, reasoning), (Role.ACTION, action)]:
                own = [token for token, each in zip(ids, roles, strict=True) if each == role]
                assert self.text(own) == (text or "")


@pytest.fixture(scope="module")
def episode(chat):
    with pytest.MonkeyPatch.context() as patch:
        return Episode(chat, patch)


def test_an_episode_carries_the_roles_of_what_was_written(episode):
    record = episode.record
    episode.check(record)
    refused = [k for k, problem in enumerate(record.problems) if problem is not None]
    assert refused == [1, 3]
    assert record.problems[3] == "unknown action 'SEARCH[words]'"
    assert record.rewards == pytest.approx([0, -0.1, 0, -0.1, *[0] * (len(record.rewards) - 5), 1])
    assert (record.success, record.ended) == (True, "terminated")
    assert record.figures == {"score": 1.0, "purchase": 1.0}
    assert record.turns == sorted(record.turns)


def test_actions_that_pages_show_are_context(episode):
    """Pages are full of what looks like actions; none of it may be learned as one."""
    pages, written = "", ""
    for token, role in zip(episode.record.ids, episode.record.roles, strict=True):
        if role == Role.CONTEXT:
            pages += episode.text([token])
        elif role == Role.ACTION:
            written += episode.text([token])
    assert all(words in pages for words in ("search[words]", "[buy now]", "<answer>", "[back to search]"))
    assert written == "".join(action or "" for _, _, action in episode.replies)
    assert "back to search" not in written and "Request" not in written


SWAP = {Role.ACTION: Role.REASONING, Role.REASONING: Role.ACTION}
MUTATIONS = {
    "a shift to the right": lambda roles: [Role.CONTEXT, *roles[:-1]],
    "a shift to the left": lambda roles: [*roles[1:], Role.OTHER],
    "context and reply turned round": lambda roles: [
        Role.ACTION if role == Role.CONTEXT else Role.CONTEXT for role in roles
    ],
    "reasoning and action turned round": lambda roles: [SWAP.get(role, role) for role in roles],
    "all of a reply an action": lambda roles: [
        role if role == Role.CONTEXT else Role.ACTION for role in roles
    ],
    "context trained as other": lambda roles: [
        Role.OTHER if role == Role.CONTEXT else role for role in roles
    ],
    "no action": lambda roles: [Role.OTHER if role == Role.ACTION else role for role in roles],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_roles_are_noticed(episode, mutation):
    wrong = replace(episode.record, roles=MUTATIONS[mutation](episode.record.roles))
    episode.check(episode.record)
    with pytest.raises(AssertionError):
        episode.check(wrong)


def test_one_token_more_or_less_is_noticed(episode):
    """At either end of every span, whatever stands beside it."""
    roles = episode.record.roles
    borders = [k for k in range(1, len(roles)) if roles[k] != roles[k - 1]]
    assert len(borders) > 30
    for border in borders:
        for place, role in [(border, roles[border - 1]), (border - 1, roles[border])]:
            wrong = replace(episode.record, roles=[*roles[:place], role, *roles[place + 1 :]])
            with pytest.raises(AssertionError):
                episode.check(wrong)
