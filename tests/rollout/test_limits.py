"""Limits of a reply and of an episode hold to the token."""

import pytest

from actfocus.errors import ConfigError
from actfocus.focus.roles import Role
from actfocus.rollout.sampler import Limits
from tests.rollout.scripts import frozen_lake, opening_text, play, play_scripts, replies_of


def test_a_reply_is_cut_at_the_response_limit(chat, monkeypatch):
    reply = chat.encode_reply("<think> a</think><answer> Down</answer>")
    for limit, problem in [(len(reply), False), (len(reply) - 1, False), (len(reply) - 2, True)]:
        (record,) = play_scripts(chat, [[reply] * 3], frozen_lake, Limits(3000, limit), monkeypatch)
        assert replies_of(record) == [reply[:limit]] * len(record.rewards)
        assert all((p is not None) == problem for p in record.problems)
        # What the model did not write, the template does: as context, between the replies.
        text = chat.tokenizer.decode(record.ids)
        assert text.count("<|end|>") == 2 + 2 * (len(record.rewards) - 1) + (limit == len(reply))


def test_limits_hold_to_the_token(lively, chat, records):
    shortest = min(len(record.ids) for record in records)
    opening = records[0].roles.index(Role.OTHER)
    seen = set()
    for context in [opening + 1, opening + 7, shortest - 30, shortest - 1]:
        for record in play(lively, chat, limits=Limits(context, 24)):
            own_opening = len(chat.opening(*opening_text(record)))
            seen.add(record.ended)
            assert all(len(reply) <= 24 for reply in replies_of(record))
            if own_opening >= context:
                assert (record.ended, record.sampled, record.rewards) == ("context", 0, [])
                assert record.total_return == 0 and isinstance(record.total_return, float)
            else:
                assert record.sampled > 0 and len(record.ids) <= context
                assert record.roles[-1] != Role.CONTEXT, "an observation that is never answered"
            for reply in replies_of(record)[:-1]:
                assert len(reply) == 24 or reply[-1] in chat.end_ids
    assert "context" in seen


def test_room_for_one_more_token_is_used(chat, monkeypatch):
    """The last reply is cut where the context ends; an observation without room behind it is left out."""
    reply = chat.encode_reply("<think> a</think><answer> oops</answer>")
    (whole,) = play_scripts(chat, [[reply] * 3], frozen_lake, Limits(3000, 200), monkeypatch)
    assert whole.ended == "truncated" and len(whole.rewards) == 3
    last = len(whole.ids) - len(reply)
    for context, expected in [
        (len(whole.ids), len(whole.ids)),
        (len(whole.ids) - 1, len(whole.ids) - 1),
        (last + 1, last + 1),
        (last, second_end := whole.turns.index(2)),
        (second_end, second_end),
        (second_end - 1, second_end - 1),
    ]:
        (record,) = play_scripts(chat, [[reply] * 3], frozen_lake, Limits(context, 200), monkeypatch)
        assert record.ids == whole.ids[:expected]
        assert record.ended == ("context" if context <= last else "truncated")
        assert len(record.rewards) == (2 if context <= last else 3)


def test_a_first_prompt_without_room_for_a_reply_is_refused(lively, chat, records):
    shortest = min(len(chat.opening(*opening_text(record))) for record in records)
    for context in (1, shortest):
        refused = f"has {shortest} tokens or more, so a context of {context} leaves no room"
        with pytest.raises(ConfigError, match=refused):
            play(lively, chat, limits=Limits(context, 24))


def test_a_context_that_the_model_cannot_read_is_refused(lively, chat):
    most = lively.causal_lm.config.max_position_embeddings
    with pytest.raises(ConfigError, match=f"may have {most + 1} tokens .* reads at most {most}: lower"):
        play(lively, chat, limits=Limits(most + 1, 24))
