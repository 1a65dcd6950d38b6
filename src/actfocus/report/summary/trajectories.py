"""Five trajectories of the last recorded step, each chosen by a rule that the page states."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actfocus.errors import RunError
from actfocus.report.summary.record import RunRecord
from actfocus.report.viewer.data import Vocabulary, pack_step, ranges, run_facts
from actfocus.report.viewer.records import Episode, load_chat
from actfocus.report.viewer.text import Reader

MOST = 5
_DECIMALS = 9
"""Of a return: what is behind them is noise of its sum."""
MOST_BYTES = 1_000_000
"""Of packed tokens: the page is to stay below 2 MB."""

Pick = Callable[[Sequence[Episode]], Episode | None]


class Rule(NamedTuple):
    """What a trajectory is chosen for."""

    title: str
    words: str
    pick: Pick


class Chosen(NamedTuple):
    """A trajectory, and the rule that chose it."""

    rule: Rule
    episode: Episode


def trajectories(record: RunRecord) -> dict[str, Any]:
    """The chosen trajectories of the newest step that can be read, packed as the viewer packs them."""
    for step in sorted(record.episode_files, reverse=True):
        episodes = [episode for episode in record.episodes(step) if episode.ids]
        if episodes:
            return _of_step(record, step, episodes)
    return {"step": None, "recorded": 0, "chosen": [], "data": None, "missing": _missing(record)}


def choose(episodes: Sequence[Episode]) -> list[Chosen]:
    """At most five, none twice; a rule that finds none is passed over, and the last rules fill up."""
    chosen: list[Chosen] = []
    left = list(episodes)
    for rule in RULES:
        if len(chosen) == MOST:
            break
        found = rule.pick(left)
        if found is not None:
            chosen.append(Chosen(rule, found))
            left = [episode for episode in left if episode is not found]
    return chosen


def _missing(record: RunRecord) -> str:
    every = record.config.save_episodes_every
    if record.episode_files:
        return "None of the recorded episodes can be read."
    if every == 0:
        return "This run records no episodes: save_episodes_every is 0."
    return f"No episodes are recorded yet: they come every {every} steps and with the last one."


def _of_step(record: RunRecord, step: int, episodes: list[Episode]) -> dict[str, Any]:
    chosen = choose(episodes)
    found: dict[str, Any] = {
        "step": step,
        "recorded": len(episodes),
        "chosen": [_facts(each) for each in chosen],
        "data": None,
        "missing": None,
    }
    try:
        chat = load_chat(record.directory, record.config)
    except RunError as error:
        record.note(str(error))
        return found
    vocabulary = Vocabulary()
    packed = pack_step(step, [each.episode for each in chosen], len(episodes), Reader(chat), vocabulary)
    room = MOST_BYTES
    for number, episode in enumerate(packed["episodes"]):
        room -= len(episode["tokens"])
        if room < 0:
            packed["episodes"][number] = None
            found["chosen"][number]["too_long"] = True
            room += len(episode["tokens"])
    # Colours mean what they mean in the whole step, not in five of its trajectories.
    packed["ranges"] = ranges(episodes)
    run = run_facts(record.name, record.config)
    found["data"] = {"run": run, "pieces": vocabulary.entries(), "steps": [packed]}
    return found


def _facts(chosen: Chosen) -> dict[str, Any]:
    episode = chosen.episode
    return {
        "title": chosen.rule.title,
        "words": chosen.rule.words,
        "group": episode.group,
        "member": episode.member,
        "success": episode.success,
        "return": episode.total_return,
        "turns": len(episode.rewards),
        "sampled": episode.sampled,
        "faulty": sum(problem is not None for problem in episode.problems),
        "trained": episode.trained,
        "too_long": False,
    }


# The rules. ----------------------------------------------------------------------------------------------


def _total(episode: Episode, unknown: float = -math.inf) -> float:
    """The return, so that sums of the same rewards in another order are equal."""
    return unknown if episode.total_return is None else round(episode.total_return, _DECIMALS)


def _place(episode: Episode) -> tuple[int, int]:
    return episode.group, episode.member


def _best_success(left: Sequence[Episode]) -> Episode | None:
    solved = [episode for episode in left if episode.success]
    return min(solved, key=lambda e: (-_total(e), e.sampled, *_place(e)), default=None)


def _typical(left: Sequence[Episode], *, success: bool) -> Episode | None:
    """Nearest to the median return, then to the median length."""
    those = [episode for episode in left if episode.success is success and episode.total_return is not None]
    if not those:
        return None
    middle = statistics.median(map(_total, those))
    length = statistics.median(episode.sampled for episode in those)
    return min(
        those, key=lambda e: (round(abs(_total(e) - middle), _DECIMALS), abs(e.sampled - length), *_place(e))
    )


def _faulty(left: Sequence[Episode]) -> Episode | None:
    def faults(episode: Episode) -> tuple[int, int]:
        problems = [problem for problem in episode.problems if problem is not None]
        return sum(not problem.startswith("unknown action") for problem in problems), len(problems)

    those = [episode for episode in left if faults(episode)[1]]
    return max(those, key=lambda e: (*faults(e), -_total(e, math.inf), -e.group, -e.member), default=None)


def pull(episode: Episode) -> float:
    """Σ weight · |advantage| over the sampled tokens; 0 if the step did not train on the trajectory."""
    figures = episode.figures
    if "weights" not in figures or "advantages" not in figures:
        return 0.0
    pairs = zip(figures["weights"], figures["advantages"], strict=True)
    return math.fsum(
        (weight or 0.0) * abs(advantage or 0.0)
        for token, (weight, advantage) in enumerate(pairs)
        if episode.is_sampled(token)
    )


def _strongest(left: Sequence[Episode]) -> Episode | None:
    those = [episode for episode in left if pull(episode) > 0]
    return max(those, key=lambda e: (pull(e), -e.group, -e.member), default=None)


def _lowest_return(left: Sequence[Episode]) -> Episode | None:
    those = [episode for episode in left if episode.total_return is not None]
    return min(those, key=lambda e: (_total(e), *_place(e)), default=None)


def _longest(left: Sequence[Episode]) -> Episode | None:
    return max(left, key=lambda e: (e.sampled, -e.group, -e.member), default=None)


RULES = (
    Rule("Best success", "solved, with the highest return; of equal ones the shortest", _best_success),
    Rule(
        "Typical success",
        "solved, with the return nearest to the median of the other solved ones, then the length nearest to"
        " theirs",
        lambda left: _typical(left, success=True),
    ),
    Rule(
        "Typical failure",
        "not solved, with the return nearest to the median of those not solved, then the length nearest to"
        " theirs",
        lambda left: _typical(left, success=False),
    ),
    Rule(
        "Faulty replies",
        "the most malformed replies; if none is malformed, the most unknown actions",
        _faulty,
    ),
    Rule(
        "Strongest pull",
        "trained on, with the largest sum of weight × |advantage| over its tokens: it moved the policy most",
        _strongest,
    ),
    Rule("Lowest return", "the lowest return; fills up where a rule above finds none", _lowest_return),
    *(
        Rule(
            "Longest of the rest", "the most sampled tokens; fills up where a rule above finds none", _longest
        )
        for _ in range(3)
    ),
)
"""In the order in which they choose, each from what those before it left."""
