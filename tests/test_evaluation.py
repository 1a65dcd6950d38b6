"""Evaluation, promises:

1. The interval is Wilson's with an effective number of episodes, and covers what it says, also where the
   episodes of a start state resemble each other.
2. What is evaluated is fixed: neither portions nor time nor other settings change it.
3. A checkpoint evaluated later gives what the run wrote down when it made it.
"""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import t as student

from actfocus.config import Config, EvaluationConfig
from actfocus.distributed import Processes
from actfocus.envs import EVALUATION_SEEDS
from actfocus.errors import ConfigError, RunError
from actfocus.evaluation import evaluate, success_interval, summarise
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.report.progress import SilentProgress
from actfocus.rollout.seeds import evaluation_starts
from actfocus.rollout.trajectory import Start, Trajectory
from actfocus.training.run import evaluate_run, train
from tests.training import conftest as training

# The fixtures that make a small model and train it.
finished, loaded, make_config = training.finished, training.loaded, training.make_config
model_folder, processes = training.model_folder, training.processes

MakeConfig = Callable[..., Config]
Finished = Callable[[str], Path]
QUIET = SilentProgress()

# The interval. -----------------------------------------------------------------------------------------

TABLES = st.integers(1, 6).flatmap(
    lambda samples: st.lists(
        st.lists(st.booleans(), min_size=samples, max_size=samples), min_size=1, max_size=12
    )
)


def wilson(rate: float, count: float) -> tuple[float, float]:
    """The two rates p at which (rate − p)² = z² p (1 − p) / count."""
    z2 = 3.841458820694124
    a, b, c = 1 + z2 / count, -(2 * rate + z2 / count), rate * rate
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@settings(deadline=None)
@given(TABLES)
@example([[False, True, True, True, True]] * 3)  # equal means, whose variance is 0 but for rounding
def test_interval_against_an_independent_computation(table: list[list[bool]]) -> None:
    array = np.array(table, dtype=float)
    states, samples = array.shape
    rate, means = array.mean(), array.mean(axis=1)
    variance_of_the_mean = means.var(ddof=1) / states if states > 1 else 0.0
    if rate in (0, 1) or states == 1:
        count: float = states
    elif variance_of_the_mean == 0:
        count = states * samples
    else:
        count = max(float(states), rate * (1 - rate) / variance_of_the_mean)
    found = success_interval(table)
    total = states * samples
    count = min(count, total)
    if states > 1:
        count *= (student.ppf(0.975, total - 1) / student.ppf(0.975, states - 1)) ** 2
    assert found == pytest.approx((rate, *wilson(rate, count)), abs=1e-9)
    assert 0 <= found[1] <= found[0] <= found[2] <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_one_sample_per_state_is_wilsons_interval(outcomes: list[bool]) -> None:
    expected = binomtest(sum(outcomes), len(outcomes)).proportion_ci(method="wilson")
    found = success_interval([[outcome] for outcome in outcomes])
    assert found[1:] == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_many_episodes_of_one_state_say_as_little_as_one() -> None:
    _, low, high = success_interval([[True, False] * 32])
    assert (low, high) == pytest.approx(wilson(0.5, 1), abs=1e-9)


def test_more_states_make_it_narrower() -> None:
    table = [[True, False, True, True], [False, False, True, False], [True, True, True, True]]
    widths = []
    for times in (1, 2, 4, 8):
        _, low, high = success_interval(table * times)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 2


def test_alike_episodes_make_it_wider() -> None:
    mixed = success_interval([[True, False, True, False]] * 8)
    alike = success_interval([[True] * 4, [False] * 4] * 4)
    assert mixed[0] == alike[0] == 0.5
    assert alike[2] - alike[1] > 1.5 * (mixed[2] - mixed[1])


def test_all_or_nothing_still_has_a_width() -> None:
    # One success more or less in as many states as there are, not in as many episodes.
    assert success_interval([[False] * 16] * 32) == pytest.approx((0, 0, wilson(0, 32)[1]), abs=0.01)
    assert success_interval([[True] * 16] * 32) == pytest.approx((1, wilson(1, 32)[0], 1), abs=0.01)


@pytest.mark.parametrize(("states", "samples"), [(32, 16), (24, 4)])
@pytest.mark.parametrize("mean", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("sameness", [0.02, 0.3, 0.8])
def test_coverage(mean: float, sameness: float, states: int, samples: int) -> None:
    """States differ in how hard they are: their rates are Beta, `sameness` is the correlation within."""
    rng = np.random.default_rng(7)
    strength = 1 / sameness - 1
    trials = 2000
    rates = rng.beta(mean * strength, (1 - mean) * strength, size=(trials, states, 1))
    tables = rng.random((trials, states, samples)) < rates
    inside = sum(low <= mean <= high for _, low, high in map(success_interval, tables.tolist()))
    assert inside / trials >= 0.93


# Evaluation. -------------------------------------------------------------------------------------------


def played(config: Config, loaded: tuple[LanguageModel, Chat], processes: Processes) -> str:
    result = evaluate(config, config.evaluation, *loaded, processes)
    return json.dumps(result.to_json())


def test_evaluation_is_fixed(
    make_config: MakeConfig, loaded: tuple[LanguageModel, Chat], processes: Processes
) -> None:
    evaluation = {"states": 4, "samples": 3}
    config = make_config(evaluation=evaluation)
    first = played(config, loaded, processes)
    assert json.loads(first)["episodes"] == 12
    assert played(config, loaded, processes) == first
    # Neither the seed of the run nor the portions matter.
    for prompts, group in ((1, 2), (5, 2), (4, 4)):
        other = make_config(evaluation=evaluation, seed=99, rollout={"prompts": prompts, "group": group})
        assert played(other, loaded, processes) == first


def test_start_states_are_fixed() -> None:
    starts = evaluation_starts(8, 3)
    assert [start.level_seed for start in starts] == [seed for seed in EVALUATION_SEEDS[:8] for _ in range(3)]
    assert len({start.sampling_seed for start in starts}) == 24
    # More of them begin with the same.
    assert [s for s in evaluation_starts(9, 5) if s.group < 8 and s.member < 3] == starts


@pytest.mark.parametrize(("ranks", "largest"), [(1, 8), (2, 4), (3, 4)])
def test_no_more_episodes_at_once_than_a_rank_samples_in_training(
    ranks: int,
    largest: int,
    make_config: MakeConfig,
    loaded: tuple[LanguageModel, Chat],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def sample(
        model: object, chat: object, make: object, starts: list[Start], **_: object
    ) -> list[Trajectory]:
        sizes.append(len(starts))
        return [Trajectory(start) for start in starts]

    monkeypatch.setattr("actfocus.evaluation.sample_episodes", sample)
    one_of_them: Any = SimpleNamespace(
        count=ranks, share=lambda items: items[::ranks], gather=lambda items: items, together=nullcontext
    )
    config = make_config(rollout={"prompts": 2, "group": 4}, evaluation={"states": 16, "samples": 2})
    evaluate(config, config.evaluation, *loaded, one_of_them)
    assert max(sizes) == largest and sum(sizes) == len(range(0, 32, ranks))


def test_figures_do_not_depend_on_the_order_of_the_episodes() -> None:
    records = [
        Trajectory(
            Start(g, m, 0, 0, 0), rewards=[0.1 * g, 0.7 * m], problems=[None, "x"], success=(g * m) % 3 == 1
        )
        for g in range(7)
        for m in range(5)
    ]
    assert summarise(records) == summarise(records[::-1]) == summarise(records[::2] + records[1::2])
    assert summarise(records).problem_share == 0.5


def test_more_states_than_there_are_is_refused(
    make_config: MakeConfig, loaded: tuple[LanguageModel, Chat], processes: Processes
) -> None:
    config = make_config(evaluation={"states": len(EVALUATION_SEEDS) + 1})
    with pytest.raises(ConfigError, match=r"evaluation\.states"):
        evaluate(config, config.evaluation, *loaded, processes)


# Of a run. ---------------------------------------------------------------------------------------------


def written(run: Path) -> dict[str, object]:
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return {"step": last["step"]} | last["evaluation"]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_run_evaluates_to_what_it_wrote_down(algorithm: str, finished: Finished) -> None:
    assert evaluate_run(finished(algorithm), progress=QUIET) == written(finished(algorithm))


def test_a_run_with_adapters_too(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(model={"lora_rank": 4}, optimizer={"lr": 0.05}, steps=2)
    train(config, tmp_path / "run", progress=QUIET)
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["evaluation"]
    found = evaluate_run(tmp_path / "run", progress=QUIET)
    assert found == written(tmp_path / "run")
    assert {key: found[key] for key in first} != first  # the adapters were trained, and are in use
    environment = tmp_path / "run" / "environment.json"
    environment.write_text(json.dumps(json.loads(environment.read_text()) | {"initial_weights": "0" * 64}))
    with pytest.raises(RunError, match="no longer the one"):  # adapters on another model are another policy
        evaluate_run(tmp_path / "run", progress=QUIET)


def test_settings_replace_those_of_the_run(finished: Finished) -> None:
    found = evaluate_run(finished("grpo"), states=2, samples=1, temperature=0.0, step=3, progress=QUIET)
    assert (found["step"], found["episodes"]) == (3, 2)


def test_what_cannot_be_evaluated_is_refused(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        evaluate_run(tmp_path, progress=QUIET)
    with pytest.raises(RunError, match="no checkpoint of step 2"):
        evaluate_run(finished("grpo"), step=2, progress=QUIET)
    with pytest.raises(ConfigError, match="states"):
        evaluate_run(finished("grpo"), states=0, progress=QUIET)
    with pytest.raises(ConfigError, match=r"evaluation\.temperature"):
        evaluate_run(finished("grpo"), temperature=-1.0, progress=QUIET)


def test_evaluation_settings_default_to_the_papers() -> None:
    assert EvaluationConfig() == EvaluationConfig(every=10, states=32, samples=16, temperature=0.5)
