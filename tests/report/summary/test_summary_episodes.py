"""What the report makes of recorded episodes, promises:

1. The diagnosis is `bottleneck`'s, from the recorded episodes alone, and says what they lack.
2. Trajectories are chosen by rules, none twice, whatever the order of the record.
"""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from actfocus.focus.bottleneck import bottleneck
from actfocus.report.summary.diagnosis import recorded_diagnosis
from actfocus.report.summary.record import read_record
from actfocus.report.summary.trajectories import choose, pull
from actfocus.report.viewer.records import read_episode
from tests.report.summary.runs import make, page
from tests.report.viewer.runs import REPLY, Record, plain, play, small_step, with_figures

# Diagnosis. ----------------------------------------------------------------------------------------------


def planted(groups: int = 12, members: int = 4) -> list[Record]:
    """Groups whose returns vary the more, the higher the energy of their action tokens is."""
    rng = random.Random(0)
    records = []
    for group in range(groups):
        for member in range(members):
            record = with_figures(play([REPLY], group=group, member=member), seed=group * members + member)
            record["signal"] = [
                (group if role == 2 else 0.0) + rng.gauss(0, 0.01) if role else 0.0
                for role in record["roles"]
            ]
            record["return"] = group * 0.1 * (member % 2)
            records.append(record)
    return records


def scopes(run: Path) -> dict[str, Any]:
    (step,) = recorded_diagnosis(read_record(run))["steps"]
    return {row["scope"]: row for row in step["scopes"]} | {"step": step}


def test_the_diagnosis_is_that_of_bottleneck(tmp_path: Path) -> None:
    records = planted()
    found = scopes(make(tmp_path / "r", {4: [*records, with_figures(play([REPLY], group=99))]}))
    rows = [torch.tensor(record["signal"], dtype=torch.float64) for record in records]
    expected = bottleneck(
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(record["roles"], dtype=torch.int8) for record in records], batch_first=True
        ),
        torch.tensor([record["return"] for record in records], dtype=torch.float64),
        torch.tensor([record["start"]["group"] for record in records]),
    )
    for scope in ("all", "reasoning", "action"):
        correlation = found[scope]["correlation"]
        assert (correlation["rho"], correlation["p"]) == (expected.rho[scope], expected.p[scope])
        assert correlation["groups"] == expected.groups[scope] == 12
    assert found["action"]["correlation"]["rho"] == pytest.approx(1)
    assert (found["step"]["groups"], found["step"]["groups_with_signal"]) == (13, 12)
    assert found["step"]["verdict"]["finding"] == "evidence"


def test_the_verdict_is_on_the_page_with_what_it_lacks(tmp_path: Path) -> None:
    text = " ".join(page(make(tmp_path / "r", {2: small_step(2), 4: planted()})).split())
    assert "<b>Evidence.</b> Evidence that the energy of action tokens is higher" in text
    assert "<b>Too little data.</b>" in text and "Step 2: 1 of 2 recorded groups carry a signal." in text
    assert "actfocus diagnose RUN" in text


def test_tokens_without_a_signal_are_counted_and_their_scope_is_left_out(tmp_path: Path) -> None:
    records = planted()
    for record in records:  # as runs that recorded the signal of action tokens alone
        pairs = zip(record["signal"], record["roles"], strict=True)
        record["signal"] = [value if role in (0, 2) else math.nan for value, role in pairs]
    found = scopes(make(tmp_path / "r", {4: records}))
    assert found["all"]["correlation"] is None and found["reasoning"]["correlation"] is None
    assert found["reasoning"]["missing"] == found["reasoning"]["tokens"] > 0
    assert found["action"]["missing"] == 0 and found["action"]["correlation"]["rho"] == pytest.approx(1)
    assert len(found["step"]["notes"]) == 2


def test_tokens_of_older_runs_that_have_0_for_their_energy_have_none(tmp_path: Path) -> None:
    records = planted()
    for record in records:
        pairs = zip(record["signal"], record["roles"], strict=True)
        record["signal"] = [0.0 if role == 1 else value for value, role in pairs]
    found = scopes(make(tmp_path / "r", {4: records}))
    assert found["reasoning"]["missing"] == found["reasoning"]["tokens"] > 0
    assert found["reasoning"]["correlation"] is None and found["action"]["correlation"] is not None
    entropy = scopes(make(tmp_path / "e", {4: records}, focus={"signal": "entropy"}))
    assert entropy["reasoning"]["missing"] == 0  # 0 is an entropy like any other


def test_equal_returns_are_equal_in_whatever_order_they_were_summed(tmp_path: Path) -> None:
    records = planted()
    for record in records:
        group, member = record["start"]["group"], record["start"]["member"]
        odd = [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1]  # differ in the last bit
        record["return"] = odd[member % 2] if group < 6 else float(group * (member % 2))
    assert "of all groups 6 without" in scopes(make(tmp_path / "r", {4: records}))["step"]["verdict"]["text"]


def test_where_action_tokens_lack_their_energy_the_page_says_so(tmp_path: Path) -> None:
    records = planted()
    for record in records:
        pairs = zip(record["signal"], record["roles"], strict=True)
        record["signal"] = [math.nan if role == 2 else value for value, role in pairs]
    assert "and it is missing at some of them" in page(make(tmp_path / "r", {4: records}))


def test_another_signal_gets_no_verdict(tmp_path: Path) -> None:
    run = make(tmp_path / "r", {4: planted()}, focus={"signal": "entropy"})
    assert scopes(run)["step"]["verdict"] is None
    assert "No verdict: its one test is of energy at action tokens" in page(run)


def test_without_a_signal_it_says_why(tmp_path: Path) -> None:
    records = [record for record in planted() if record.pop("signal")]
    run = make(tmp_path / "r", {4: records}, focus={"alpha": 1.0, "beta": 0.0})
    assert "The recorded tokens carry no signal: with beta = 0" in page(run)


def test_first_and_last_step_are_diagnosed(tmp_path: Path) -> None:
    run = make(tmp_path / "r", {step: small_step(step) for step in (1, 2, 4)})
    assert [step["step"] for step in recorded_diagnosis(read_record(run))["steps"]] == [1, 4]


# Trajectories. -------------------------------------------------------------------------------------------


def episode(member: int, total: float, success: bool, *, replies: int = 1, **others: Any) -> Record:
    record = plain(play([REPLY] * replies, member=member))
    return record | {"return": total, "success": success} | others


def test_each_rule_finds_its_trajectory() -> None:
    records = [
        episode(0, 9, True, replies=3),
        episode(1, 9, True),  # as good, and shorter
        episode(2, 5, True),
        episode(3, 1, True),
        episode(4, -1, False),
        episode(5, -2, False),
        episode(6, -9, False),
        episode(7, -1, False, problems=["unknown action 'x'"] * 5),
        episode(8, -1, False, problems=["missing <think>"]),
    ]
    strong = with_figures(play([REPLY], member=9))
    strong |= {"return": 2.0, "success": True, "weights": [9.0] * len(strong["ids"])}
    records.append(strong)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        chosen = choose([read_episode(record) for record in records])
        assert [(each.rule.title, each.episode.member) for each in chosen] == [
            ("Best success", 1),
            ("Typical success", 2),
            ("Typical failure", 4),
            ("Faulty replies", 8),
            ("Strongest pull", 9),
        ]


def test_equal_returns_leave_the_choice_to_the_length() -> None:
    one, other = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert one != other
    long, short = episode(0, max(one, other), True, replies=3), episode(1, min(one, other), True)
    (best, _) = choose([read_episode(long), read_episode(short)])
    assert (best.rule.title, best.episode.member) == ("Best success", 1)


def test_the_rest_fills_up_and_none_comes_twice() -> None:
    records = [episode(member, -member, False, replies=1 + member % 3) for member in range(7)]
    chosen = choose([read_episode(record) for record in records])
    assert [(each.rule.title, each.episode.member) for each in chosen] == [
        ("Typical failure", 3),
        ("Lowest return", 6),
        ("Longest of the rest", 2),
        ("Longest of the rest", 5),
        ("Longest of the rest", 1),
    ]
    assert [each.episode.member for each in choose([read_episode(records[0])])] == [0]
    assert choose([]) == []


def test_pull_is_the_weighted_sum_of_the_advantages() -> None:
    record = with_figures(play([REPLY]))
    for name in ("weights", "advantages"):  # what stands at context is no concern
        pairs = zip(record[name], record["roles"], strict=True)
        record[name] = [value if role else 7.0 for value, role in pairs]
    triples = zip(record["weights"], record["advantages"], record["roles"], strict=True)
    expected = math.fsum(weight * abs(advantage) for weight, advantage, role in triples if role)
    assert pull(read_episode(record)) == pytest.approx(expected)
    assert pull(read_episode(plain(play([REPLY])))) == 0


def test_the_page_says_why_each_was_chosen(tmp_path: Path) -> None:
    text = page(make(tmp_path / "r"))
    for title in ("Best success", "Typical failure", "Faulty replies", "Lowest return"):
        assert f"{title}</h3>" in text
    assert "5 trajectories of step 4" in text and "actfocus view RUN" in text
