"""What the page says beside its tokens: a letter where a role begins, counts, and each turn's own reward."""

from tests.report.viewer.runs import REPLY, play, with_figures


def test_letters_stand_where_a_role_begins(open_viewer, write_page) -> None:
    records = [with_figures(play([REPLY] * 2))]
    viewer = open_viewer(write_page({1: records}))
    viewer.shows(1, 0)
    found = viewer.page.eval_on_selector_all(
        "#tokens .t[data-run]", "all => all.map((one) => [Number(one.dataset.i), one.dataset.run])"
    )
    roles = records[0]["roles"]
    starts = [t for t in range(1, len(roles)) if roles[t] and roles[t] != roles[t - 1]]
    assert found == [[t, " RAO"[roles[t]]] for t in starts]


def test_every_turn_has_its_own_reward_and_problem(open_viewer, write_page) -> None:
    record = with_figures(play([REPLY, "no tags at all", "<think> x</think><answer> Jump</answer>"]))
    record["rewards"] = [0.25, -0.5, 0.125]
    viewer = open_viewer(write_page({1: [record]}))
    viewer.shows(1, 0)
    turns = viewer.page.eval_on_selector_all(
        "#tokens .turn",
        """all => all.map((turn) => [".reward", ".problem"].map((name) => {
            const found = turn.querySelector(`header ${name}`);
            return found && found.textContent;
        }))""",
    )
    # The last turn was opened and never answered.
    assert [reward for reward, _ in turns] == ["reward 0.25", "reward −0.5", "reward 0.125", None]
    assert [problem is not None for _, problem in turns] == [False, True, True, False]
    assert "missing" in turns[1][1] and "Jump" in turns[2][1]


def test_the_facts_count_tokens_by_role(open_viewer, write_page) -> None:
    records = [with_figures(play([REPLY] * 2))]
    viewer = open_viewer(write_page({1: records}))
    viewer.shows(1, 0)
    roles = records[0]["roles"]
    sampled, actions = sum(role != 0 for role in roles), roles.count(2)
    assert f"{len(roles)} tokens, {sampled} sampled, {actions} of action" in viewer.page.inner_text("#facts")
    assert roles.count(1) != actions
