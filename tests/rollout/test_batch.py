"""Records and batches, promises:

1. Index t of every tensor speaks of token t of the record; padding is CONTEXT with 0 everywhere.
2. R stands on the last *sampled* token of each row, never on an observation, and nowhere else.
3. Rows keep their order and their figures when some of them are taken.
4. The groups that vary most are kept, in order.
5. A record written as JSON comes back the same.
"""

import json
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.focus.roles import Role
from actfocus.rollout.batch import Batch, collate, keep_varied_groups
from actfocus.rollout.sampler import Limits, sample_episodes
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Start, Trajectory
from tests.rollout.scripts import frozen_lake

C, R, A, X = Role.CONTEXT, Role.REASONING, Role.ACTION, Role.OTHER


def record(roles, rewards=(1.0,), group=0, member=0):
    """A trajectory whose tokens and log-probabilities tell their place."""
    found = Trajectory(Start(group, member, 1, 2, 3), rewards=list(rewards), problems=[None] * len(rewards))
    for t, role in enumerate(roles):
        if role == C:
            found.add_context([100 + t], turn=0)
        else:
            found.add_reply([100 + t], [int(role)], [-0.5 - t], turn=0)
    return found


RECORDS = [
    record([C, C, X, R, X, A, X], [0.5, -0.1]),
    record([C, X, A, C, C], [2.0], group=1),
    record([C, R, C, A, X, C, C, C, C], [-1.0], group=1, member=1),
    record([C, C], [], group=2),
]
LAST_SAMPLED = [6, 2, 4, None]


def test_the_return_stands_on_the_last_sampled_token():
    batch = collate(RECORDS)
    expected = torch.zeros(4, 9)
    for row, (each, last) in enumerate(zip(RECORDS, LAST_SAMPLED, strict=True)):
        if last is not None:
            expected[row, last] = each.total_return
    assert torch.equal(batch.rewards_BT, expected)
    assert batch.rewards_BT[batch.roles_BT == C].eq(0).all()
    assert torch.equal(batch.returns_B, torch.tensor([0.4, 2.0, -1.0, 0.0]))


def test_index_t_speaks_of_token_t():
    batch = collate(RECORDS)
    for row, each in enumerate(RECORDS):
        n = len(each.ids)
        assert batch.ids_BT[row, :n].tolist() == each.ids == [100 + t for t in range(n)]
        assert batch.roles_BT[row, :n].tolist() == each.roles
        assert batch.sampler_logprobs_BT[row, :n].tolist() == each.logprobs
        for t in range(n):
            assert batch.sampled_BT[row, t] == (each.roles[t] != C)
            assert batch.sampler_logprobs_BT[row, t] == (-0.5 - t if each.roles[t] != C else 0)
        for tensor in (batch.ids_BT, batch.sampler_logprobs_BT, batch.rewards_BT):
            assert tensor[row, n:].eq(0).all()
        assert batch.roles_BT[row, n:].eq(Role.CONTEXT).all() and not batch.sampled_BT[row, n:].any()
    assert batch.lengths_B.tolist() == [7, 5, 9, 2]
    assert batch.groups_B.tolist() == [0, 1, 1, 2]


def test_types_do_not_depend_on_what_is_in_the_batch():
    for chosen in (RECORDS, RECORDS[3:], [record([C, A], [1])]):
        batch = collate(chosen)
        assert batch.ids_BT.dtype == batch.groups_B.dtype == batch.lengths_B.dtype == torch.long
        assert batch.roles_BT.dtype == torch.int8
        found = {batch.sampler_logprobs_BT.dtype, batch.rewards_BT.dtype, batch.returns_B.dtype}
        assert found == {torch.float32}


@settings(deadline=None)
@given(rows=st.lists(st.lists(st.sampled_from(Role), min_size=1, max_size=12), min_size=1, max_size=5))
def test_every_return_is_placed_once_on_a_sampled_token(rows):
    batch = collate([record(roles, [k + 1.0]) for k, roles in enumerate(rows)])
    for row, roles in enumerate(rows):
        sampled = [t for t, role in enumerate(roles) if role != C]
        placed = batch.rewards_BT[row].nonzero().flatten().tolist()
        assert placed == sampled[-1:]
        assert batch.sampled_BT[row].nonzero().flatten().tolist() == sampled


def filled(batch):
    """The batch with every later tensor filled in, so that each place tells row and column."""
    rows, columns = batch.ids_BT.shape
    for k, each in enumerate(fields(Batch)):
        if getattr(batch, each.name) is None:
            place = 1000.0 * k + torch.arange(rows)[:, None] * 50 + torch.arange(columns)
            setattr(batch, each.name, place)
    return batch


@pytest.mark.parametrize("index", [[0], [3], [2, 0], [1, 3], [3, 1, 1], [0, 1, 2, 3]])
def test_rows_are_cut_to_the_longest_and_keep_their_order(index):
    batch = filled(collate(RECORDS))
    part = batch.rows(index)
    longest = max(len(RECORDS[row].ids) for row in index)
    assert len(part) == len(index)
    for each in fields(Batch):
        whole, found = getattr(batch, each.name), getattr(part, each.name)
        assert found.shape == ((len(index), longest) if whole.dim() == 2 else (len(index),))
        for new, old in enumerate(index):
            assert torch.equal(found[new], whole[old, :longest] if whole.dim() == 2 else whole[old])
    assert part.ids_BT[:, -1].ne(0).any()


def test_rows_of_an_unfinished_batch_stay_unfinished():
    part = collate(RECORDS).rows([1, 0])
    assert part.old_logprobs_BT is None and part.advantages_BT is None


def test_a_sampled_batch_ends_with_its_return_on_the_last_word(lively, chat):
    starts = training_starts(2, 0, 2, 2)
    for context in (900, 420):
        records = sample_episodes(lively, chat, frozen_lake, starts, limits=Limits(context, 24))
        batch = collate(records)
        for row, each in enumerate(records):
            last = max(t for t, role in enumerate(each.roles) if role != C)
            assert each.total_return != 0
            assert batch.rewards_BT[row, last] == torch.tensor(each.total_return)
            assert batch.rewards_BT[row].count_nonzero() == 1


# Groups. ------------------------------------------------------------------------------------------------


def grouped(returns):
    return [
        record([C, A], [value], group=group, member=m)
        for group, values in returns.items()
        for m, value in enumerate(values)
    ]


def test_the_groups_that_vary_most_are_kept_in_order():
    records = grouped({7: [0, 1, 0], 3: [5, 5, 5], 9: [0, 10, 0], 1: [0, 0, 2]})

    def kept(count):
        return [each.start.group for each in keep_varied_groups(records, count)]

    assert kept(1) == [9] * 3
    assert kept(2) == [9] * 3 + [1] * 3
    assert kept(3) == [7] * 3 + [9] * 3 + [1] * 3
    assert keep_varied_groups(records, 4) == records == keep_varied_groups(records, 9)
    assert [each.start.member for each in keep_varied_groups(records, 2)] == [0, 1, 2] * 2


def test_equal_spread_keeps_what_was_sampled_first():
    records = grouped({4: [0, 1], 2: [1, 0], 8: [5, 6], 0: [1, 1]})
    assert [each.start.group for each in keep_varied_groups(records, 2)] == [4, 4, 2, 2]


def test_groups_that_are_mixed_up_are_told_apart():
    records = grouped({0: [0, 1], 1: [0, 9], 2: [3, 3]})
    mixed = [records[k] for k in (2, 0, 4, 3, 5, 1)]
    assert keep_varied_groups(mixed, 1) == [records[2], records[3]]
    assert keep_varied_groups(mixed, 2) == [records[k] for k in (2, 0, 3, 1)]


# The record. --------------------------------------------------------------------------------------------


def test_a_record_comes_back_from_json(lively, chat):
    limits = Limits(900, 24)
    sampled = sample_episodes(lively, chat, frozen_lake, training_starts(0, 1, 1, 2), limits=limits)
    for each in [*sampled, *RECORDS]:
        text = json.dumps(each.to_json() | {"return": each.total_return, "weights": [1.0]})
        back = Trajectory.from_json(json.loads(text))
        assert back == each
        assert isinstance(back.start, Start) and back.start.sampling_seed == each.start.sampling_seed
        assert back.total_return == each.total_return and back.sampled == each.sampled


def test_a_token_without_a_role_or_logprob_is_refused():
    each = record([C, A])
    with pytest.raises(ValueError, match="one role and one log-probability per token"):
        each.add_reply([1, 2], [int(A)], [0.0, 0.0], turn=0)
    with pytest.raises(ValueError, match="one role and one log-probability per token"):
        each.add_reply([1, 2], [int(A), int(A)], [0.0], turn=0)
    assert len(each.ids) == len(each.roles) == len(each.logprobs) == len(each.turns) == 2


def test_sampled_counts_what_the_model_wrote():
    assert [each.sampled for each in RECORDS] == [5, 2, 3, 0]
