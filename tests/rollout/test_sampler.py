"""Sampling, promises:

1. What the sampler records of a token is what the trainer finds at the same place: not one earlier or later.
2. An episode does not depend on who is sampled with it, and a start gives the same episode every time.
3. The recorded ids are the template's and the sampled ones, nothing else; played again as text, they give the
   same rewards, problems and success.
4. Each distinct opening is computed once.
"""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, Qwen2Config

from actfocus.envs import make_env
from actfocus.errors import ModelError, NonFiniteError
from actfocus.focus.roles import Role
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.tiny import tiny_model
from actfocus.rollout.batch import collate
from actfocus.rollout.context_cache import ContextCache
from actfocus.rollout.sampler import BrokenSampling, Episode, Limits
from actfocus.rollout.seeds import training_starts
from tests.fixtures import Brief, fresh_tokenizer, lively_weights
from tests.rollout.scripts import LIMITS, frozen_lake, opening_text, play, play_scripts, replies_of

GAMES = {
    "frozen-lake": frozen_lake,
    "sokoban": lambda: make_env("sokoban", turns=3),
    "sudoku": lambda: make_env("sudoku", turns=3),
}


def test_the_episodes_are_worth_testing_with(records):
    """Several turns, replies of many lengths, some ended and some cut, rows of different length."""
    assert {len(record.rewards) for record in records} == {3}
    assert len({len(record.ids) for record in records}) > 4
    replies = [reply for record in records for reply in replies_of(record)]
    lengths = {len(reply) for reply in replies}
    assert len(lengths) > 5 and max(lengths) == LIMITS.response


def check_alignment(model, records):
    batch = collate(records)
    chosen_BT = batch.sampled_BT
    recorded = batch.sampler_logprobs_BT
    with torch.no_grad():
        scored = model.token_scores(batch.ids_BT, chosen_BT).logprobs
    assert (scored - recorded[chosen_BT]).abs().max() < 1e-4
    assert recorded[~chosen_BT].eq(0).all()
    for shift in (-1, 1):  # the same figures one place off do not fit
        off = (scored - recorded.roll(shift, dims=1)[chosen_BT]).abs()
        assert (off > 1e-2).float().mean() > 0.9


@pytest.mark.parametrize("game", GAMES)
def test_recorded_logprobs_are_the_trainers(lively, chat, game):
    check_alignment(lively, play(lively, chat, make=GAMES[game]))


def test_recorded_logprobs_are_the_trainers_when_some_episodes_end_before_others(lively, chat, records):
    """The rows that go on must keep their own contexts, whichever rows leave between them."""
    seen = set()
    for context in sorted(len(record.ids) for record in records)[::3]:
        short = play(lively, chat, limits=Limits(context, 24))
        turns = [len(record.rewards) for record in short]
        seen.add(min(turns) < turns[-1] and turns[0] < max(turns))
        check_alignment(lively, short)
        for record, whole in zip(short, records, strict=True):
            assert record.ids == whole.ids[: len(record.ids)]
    assert True in seen, "a row in front of one that goes on must have ended"


SHAPE = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2"])
def test_recorded_logprobs_are_the_trainers_in_other_architectures(chat, name):
    V = len(chat.tokenizer)
    common = {"vocab_size": V, "initializer_range": 0.25, "bos_token_id": None, "eos_token_id": 1}
    config = {
        "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, **common),
        "qwen2": Qwen2Config(hidden_size=32, **SHAPE, **common),
        "gemma2": Gemma2Config(hidden_size=32, head_dim=8, final_logit_softcapping=4.0, **SHAPE, **common),
    }[name]
    torch.manual_seed(0)
    model = Brief(AutoModelForCausalLM.from_config(config))
    model.liking = (chat.tokenizer.eos_token_id, 3.0)
    check_alignment(model, play(model, chat, starts=training_starts(0, 0, 2, 2)))


def test_bfloat16_samples_close_to_what_it_trains_on(lively, chat):
    model = Brief(lively.model, precision="bfloat16")
    model.liking = lively.liking
    records = play(model, chat)
    batch = collate(records)
    with torch.no_grad():
        scored = model.token_scores(batch.ids_BT, batch.sampled_BT).logprobs
    assert (scored - batch.sampler_logprobs_BT[batch.sampled_BT]).abs().mean() < 0.2


# 2. Independence. ---------------------------------------------------------------------------------------


def test_an_episode_does_not_depend_on_its_company(lively, chat, records):
    for record in records:
        (alone,) = play(lively, chat, starts=[record.start])
        assert (alone.ids, alone.roles, alone.turns) == (record.ids, record.roles, record.turns)
        assert (alone.rewards, alone.problems, alone.ended) == (record.rewards, record.problems, record.ended)
        assert alone.logprobs == pytest.approx(record.logprobs, abs=1e-4)


def test_the_same_starts_give_the_same_episodes_in_any_order(lively, chat, records):
    starts = [record.start for record in records]
    torch.manual_seed(123)  # owned by nobody here
    assert play(lively, chat, starts=starts) == records
    turned = play(lively, chat, starts=starts[::-1])[::-1]
    assert [r.ids for r in turned] == [r.ids for r in records]
    assert [r.start for r in turned] == starts


def test_members_of_a_group_differ_though_they_start_alike(records):
    for g in range(3):
        members = [record for record in records if record.start.group == g]
        assert len({tuple(record.ids) for record in members}) == 3
        openings = {tuple(r.ids[: r.roles.index(Role.OTHER)]) for r in members}
        assert len(openings) == 1


# 3. The record. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", GAMES)
def test_the_record_is_template_and_sampled_ids_and_replays(lively, chat, game):
    for record in play(lively, chat, make=GAMES[game]):
        check_replay(chat, record, GAMES[game]())


def check_replay(chat, record, env):
    """Play the replies again as text; lay template and replies together again."""
    observation, _ = env.reset(
        seed=record.start.level_seed, options={"chance_seed": record.start.chance_seed}
    )
    messages = [
        {"role": "system", "content": env.system_prompt},
        {"role": "user", "content": observation},
    ]
    ids, roles = chat.opening(env.system_prompt, observation), []
    roles = [Role.CONTEXT] * len(ids)
    rewards, problems, ended, info = [], [], "context", {"success": False}
    for reply in replies_of(record):
        if rewards:
            between = chat.next_turn(observation, reply_ended=ids[-1] in chat.end_ids)
            ids, roles = ids + between, roles + [Role.CONTEXT] * len(between)
            messages.append({"role": "user", "content": observation})
        ids, roles = ids + reply, roles + [Role.OTHER] * len(reply)
        text = chat.tokenizer.decode([i for i in reply if i not in chat.end_ids])
        messages.append({"role": "assistant", "content": text})
        observation, reward, terminated, truncated, info = env.step(text)
        rewards.append(reward)
        problems.append(info["problem"])
        ended = "terminated" if terminated else "truncated" if truncated else "context"
    assert record.ids == ids
    assert [role != Role.CONTEXT for role in record.roles] == [role != Role.CONTEXT for role in roles]
    assert (record.rewards, record.problems) == (rewards, problems)
    assert (record.success, record.ended) == (info["success"], ended)
    whole = chat.tokenizer.apply_chat_template(messages, tokenize=False)
    end = "" if ids[-1] in chat.end_ids else chat.tokenizer.eos_token
    assert chat.tokenizer.decode(ids) + end == whole


@pytest.mark.parametrize("game", GAMES)
def test_scripted_experts_succeed_and_replay(chat, game, monkeypatch):
    """Well-formed replies, wins included: rewards, problems and success come from the recorded ids alone."""
    settings = {"frozen-lake": {"success_rate": 1.0, "turns": 8}, "sokoban": {}, "sudoku": {}}[game]

    def make():
        return make_env(game, **settings)

    (start,) = training_starts(0, 0, 1, 1)
    env = make()
    env.reset(seed=start.level_seed, options={"chance_seed": start.chance_seed})
    script, over = [], False
    while not over:
        moves = " || ".join(env.expert_actions()[: env.actions_per_turn])
        reply = f"<think> go</think><answer> {moves}</answer>"
        script.append(chat.encode_reply(reply))
        _, _, terminated, truncated, _ = env.step(reply)
        over = terminated or truncated
    (record,) = play_scripts(chat, [script], make, Limits(8000, 200), monkeypatch)
    assert replies_of(record) == script
    assert record.success == env.success and record.ended == ("terminated" if terminated else "truncated")
    assert record.success or game == "sokoban"
    check_replay(chat, record, make())


def test_the_members_of_a_group_have_luck_of_their_own(chat, monkeypatch):
    """On ice the same replies lead to different places; each record replays with its own luck."""
    reply = chat.encode_reply("<think> a</think><answer> Right || Down</answer>")

    def make():
        return make_env("frozen-lake", success_rate=0.34, turns=3)

    records = play_scripts(chat, [[reply] * 3] * 8, make, Limits(3000, 200), monkeypatch)
    assert len({tuple(record.ids) for record in records}) > 2
    assert len({record.start.level_seed for record in records}) == 1
    for record in records:
        check_replay(chat, record, make())


def test_an_empty_reply_is_refused(chat):
    episode = Episode(frozen_lake(), chat, training_starts(1, 0, 1, 1)[0], LIMITS)
    with pytest.raises(ModelError, match="without any token"):
        episode.take([], None)


def test_a_reply_whose_think_the_template_wrote_is_whole():
    tokenizer = fresh_tokenizer()
    chat = Chat(tokenizer)
    tokenizer.chat_template = chat.tokenizer.chat_template.replace("<|assistant|>", "<|assistant|><think>\n")
    chat = Chat(tokenizer)
    episode = Episode(frozen_lake(), chat, training_starts(1, 0, 1, 1)[0], Limits(2000, 60))
    before = len(episode.record.ids)
    written = chat.encode_reply("I go.</think><answer>Left</answer>")
    episode.take(written, None)
    episode.play()
    assert episode.record.problems == [None]
    roles = episode.record.roles[before : before + len(written)]

    def said(role):
        return chat.decode([i for i, r in zip(written, roles, strict=True) if r == role])[0]

    assert said(Role.REASONING) == "I go." and said(Role.ACTION) == "Left"
    # A reply with a tag of its own is whole too, and the template's is no part of it.
    episode.take(chat.encode_reply("<think>I go.</think><answer>Left</answer>"), None)
    episode.play()
    assert episode.record.problems == [None, None]


def test_no_starts_are_no_episodes(lively, chat):
    assert play(lively, chat, starts=[]) == []


# 4. Cost, temperature, broken weights. ------------------------------------------------------------------


def test_each_distinct_opening_is_computed_once(lively, chat, monkeypatch):
    calls = []
    append = ContextCache.append

    def spy(self, blocks):
        calls.append([tuple(block) for block in blocks])
        return append(self, blocks)

    monkeypatch.setattr(ContextCache, "append", spy)
    records = play(lively, chat, starts=training_starts(4, 0, 2, 5))
    openings = {tuple(chat.opening(*opening_text(record))) for record in records}
    assert len(openings) == 2
    assert len(calls[0]) == 2 and set(calls[0]) == openings
    assert len(calls[1]) == 10
    # Every token of every episode is read at most once, whatever the padding.
    read = sum(len(block) for blocks in calls[1:] for block in blocks)
    written = sum(len(r.ids) - len(chat.opening(*opening_text(r))) for r in records)
    assert read <= written


def test_rows_that_rest_are_put_aside_and_come_back(lively, chat, monkeypatch):
    sizes = []
    append = ContextCache.append

    def spy(self, blocks):
        sizes.append((len(blocks), sum(map(bool, blocks)), max(map(len, blocks))))
        return append(self, blocks)

    monkeypatch.setattr(ContextCache, "append", spy)
    records = play(lively, chat, starts=training_starts(4, 0, 2, 5))
    while_writing = [(rows, busy) for rows, busy, width in sizes[1:] if width == 1]
    assert all(2 * busy > rows for rows, busy in while_writing)  # or half of the rows would rest
    assert min(rows for rows, _ in while_writing) < 5
    turns = max(len(record.rewards) for record in records)
    assert turns > 1 and max(rows for rows, _, width in sizes[1:] if width > 1) > 5


def test_temperature_zero_takes_the_likeliest_token(lively, chat):
    first = play(lively, chat, temperature=0)
    batch = collate(first)
    chosen_BT = batch.sampled_BT
    with torch.no_grad():
        logits_BTV = lively.head(lively.hidden(batch.ids_BT))[:, :-1]
    best = logits_BTV[chosen_BT[:, 1:]].argmax(-1)
    assert torch.equal(best, batch.ids_BT[chosen_BT])
    check_alignment(lively, first)
    # No luck is left: the members of a group differ in nothing but the game's chance.
    again = play(lively, chat, starts=training_starts(1, 0, 3, 1), temperature=0)
    assert replies_of(again[0])[0] == replies_of(first[0])[0] == replies_of(first[1])[0]


def test_luck_just_below_one_finds_a_token(chat, monkeypatch):
    """As a float32 such a number is 1, and the last token would be taken, however unlikely."""
    model = Brief(lively_weights())
    model.liking = (len(chat.tokenizer) - 1, -float("inf"))
    monkeypatch.setattr(Episode, "draw", lambda self: math.nextafter(1, 0))
    for record in play(model, chat, starts=training_starts(0, 0, 1, 1)):
        assert len(chat.tokenizer) - 1 not in replies_of(record)[0]
        assert all(math.isfinite(logprob) for logprob in record.logprobs)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_recorded_logprobs_are_those_at_temperature_one(lively, chat, temperature):
    check_alignment(lively, play(lively, chat, temperature=temperature))


def test_a_broken_model_raises(chat):
    model = LanguageModel(tiny_model(chat.tokenizer))
    with torch.no_grad():
        model.model.model.norm.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match="not finite while sampling"):
        play(model, chat)


@pytest.mark.parametrize("after", [-3, 0, 1, 6])
@pytest.mark.parametrize("context", [900, 155], ids=["all-go-on", "some-have-ended"])
def test_what_was_sampled_before_a_model_broke_is_kept(lively, chat, monkeypatch, after, context):
    """The episodes of the error are those of the healthy model, as far as they came: also a reply that is
    whole and waits for the others, and each of them once. The model breaks `after` tokens into turn 1.
    """
    limits = Limits(context, 24)
    records = play(lively, chat, limits=limits)
    assert {len(replies_of(record)) for record in records} == ({3} if context == 900 else {1, 2})
    first = max(len(replies_of(record)[0]) for record in records)
    calls, healthy = iter(range(10**6)), LanguageModel.head

    def head(self, hidden_ND):
        logits_NV = healthy(self, hidden_ND)
        return logits_NV * float("nan") if next(calls) >= first + after else logits_NV

    monkeypatch.setattr(LanguageModel, "head", head)
    with pytest.raises(BrokenSampling, match="not finite while sampling") as caught:
        play(lively, chat, limits=limits)
    assert len(caught.value.records) == len(records)
    for kept, whole in zip(caught.value.records, records, strict=True):
        assert kept.ids == whole.ids[: len(kept.ids)]
        assert [role != Role.CONTEXT for role in kept.roles] == [
            role != Role.CONTEXT for role in whole.roles[: len(kept.roles)]
        ]
        assert kept.logprobs == pytest.approx(whole.logprobs[: len(kept.logprobs)], abs=1e-5)
        lengths = [len(reply) for reply in replies_of(whole)[:2]] + [0]
        assert kept.sampled == min(lengths[0], first + after) + min(lengths[1], max(0, after))
