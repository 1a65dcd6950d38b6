"""Evaluation: success on fixed start states, with an interval.

Training never draws their level seeds. Two seeds may give the same level, though, and a small game has few:
the README says how many.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scipy.special import stdtrit

from actfocus.config import Config, EvaluationConfig
from actfocus.distributed import Processes
from actfocus.envs import EVALUATION_SEEDS, configured_env
from actfocus.errors import ConfigError
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.rollout.sampler import Limits, sample_episodes
from actfocus.rollout.seeds import evaluation_starts
from actfocus.rollout.trajectory import Trajectory, mean_figures


@dataclass(frozen=True)
class Evaluation:
    """Success rate with its 95 % interval, mean return, share of faulty replies, the game's own figures."""

    success: float
    low: float
    high: float
    mean_return: float
    problem_share: float
    episodes: int
    own: dict[str, float] = field(default_factory=dict)
    """Means of what the game reports beside success, such as WebShop's score and purchases."""

    def to_json(self) -> dict[str, Any]:
        """The figures; `mean_return` under the name `return`, and the game's own among the others."""
        figures = asdict(self)
        figures["return"] = figures.pop("mean_return")
        return {**figures.pop("own"), **figures}


def success_interval(successes_SM: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """Success rate and 95 % interval from M episodes in each of S start states.

    Episodes of one start state resemble each other, so S · M of them say less than S · M independent ones.
    The interval is Wilson's with the effective number of episodes: the one at which a binomial would have
    the variance that the means of the start states show, between S and S · M, and less the fewer start
    states that variance is estimated from (Korn and Graubard 1998: the squared ratio of Student's quantiles).
    With M = 1 it is Wilson's own; with S = 1 nothing tells how much they resemble, and all M count as one.
    Where success is rarer than about one start state in ten and comes in clusters, it covers less than 95 %.
    """
    means = [sum(row) / len(row) for row in successes_SM]
    states, total = len(means), sum(len(row) for row in successes_SM)
    rate = sum(map(sum, successes_SM)) / total
    spread = sum((mean - rate) ** 2 for mean in means) / max(1, states - 1) / states
    unknown = states == 1 or rate in (0, 1)
    wanted = rate * (1 - rate) / spread if spread > 0 else float(states if unknown else total)
    few = (stdtrit(total - 1, 0.975) / stdtrit(states - 1, 0.975)) ** 2 if states > 1 else 1.0
    # Held below the total before it is corrected: a spread of rounding errors then means the same as none.
    count = float(min(max(wanted, states), total) * few)
    z = 1.959963984540054
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    # Rounding could put a bound beyond the rate where the rate is 0 or 1.
    return rate, min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def evaluate(
    config: Config, settings: EvaluationConfig, policy: LanguageModel, chat: Chat, processes: Processes
) -> Evaluation:
    """Play every start of the fixed evaluation set once, shared among the ranks.

    Raises:
        ConfigError: If there are not so many start states, or a prompt leaves no room for a reply.
        NonFiniteError: If the policy's distribution is broken.
        GameError: If a game of the user's own raises.
    """
    if settings.states > len(EVALUATION_SEEDS):
        raise ConfigError(f"evaluation.states is at most {len(EVALUATION_SEEDS)}")
    records: list[Trajectory] = []
    starts = processes.share(evaluation_starts(settings.states, settings.samples))
    # In portions of the size that a rank samples at once in training, so that no more memory is needed.
    portion = -(-config.rollout.prompts // processes.count) * config.rollout.group
    with processes.together():
        for first in range(0, len(starts), portion):
            records += sample_episodes(
                policy,
                chat,
                lambda: configured_env(config.env),
                starts[first : first + portion],
                limits=Limits(config.rollout.context, config.rollout.response),
                temperature=settings.temperature,
            )
    # In one order on any number of processes, so that sums round alike.
    return summarise(sorted(processes.gather(records), key=lambda record: record.start))


def summarise(records: Sequence[Trajectory]) -> Evaluation:
    """The figures of some episodes, grouped by start state."""
    by_state: dict[int, list[bool]] = {}
    for record in records:
        by_state.setdefault(record.start.group, []).append(record.success)
    rate, low, high = success_interval(list(by_state.values()))
    problems = [problem is not None for record in records for problem in record.problems]
    return Evaluation(
        success=rate,
        low=low,
        high=high,
        mean_return=math.fsum(record.total_return for record in records) / len(records),
        problem_share=sum(problems) / max(1, len(problems)),
        episodes=len(records),
        own=mean_figures(records),
    )
