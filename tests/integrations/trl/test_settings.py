"""Settings under which the weights would vanish are refused before anything is loaded; so is another TRL."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from actfocus.errors import ConfigError
from actfocus.integrations import versions
from actfocus.integrations.trl import FocusConfig, version
from tests.integrations.trl.scripted import Recorder, line, parameters, prompts, trainer


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"importance_sampling_level": "sequence"}, "set it to 'token'"),
        ({"importance_sampling_level": "sequence", "loss_type": "luspo"}, "set it to 'token'"),
        ({"loss_type": "luspo"}, "choose one of dapo"),
        ({"loss_type": "drgrpo"}, "did you mean 'dr_grpo'"),
        ({"steps_per_generation": 3, "num_generations": 3}, "make it a multiple"),
        ({"sync_ref_model": True, "beta": 0.1}, "choose focus.signal = nll"),
        ({"roles": "tag"}, "did you mean 'tags'"),
        ({"roles": "tools"}, r"give roles a function \(text, ids\) -> spans"),
    ],
)
def test_what_would_not_do_as_it_says_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        trainer(tmp_path, **settings)


def test_a_moving_reference_is_no_matter_to_who_does_not_read_it(tmp_path: Path) -> None:
    assert trainer(tmp_path, sync_ref_model=True, beta=0.1, focus=FocusConfig(signal="nll")) is not None


def test_evaluation_is_weighted_as_one_batch(tmp_path: Path) -> None:
    """Uniform weights give TRL's figure; others another one."""
    losses = [
        trainer(tmp_path, per_device_eval_batch_size=8, **given).evaluate(prompts(2))["eval_loss"]
        for given in (
            {"kind": GRPOTrainer},
            {"focus": FocusConfig(alpha=1, beta=0)},
            {"focus": FocusConfig()},
        )
    ]
    assert losses[0] == losses[1] != losses[2]


def test_liger_has_no_loss_of_its_own(tmp_path: Path) -> None:
    """It replaces layers in this TRL; the loss that it once had in its place would bypass the weights."""
    assert not [name for name in vars(GRPOTrainer) if "liger" in name]


class NoTurn:
    """Plays lines in which nothing is an action, after one update that leaves Adam a momentum."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        self.calls += 1
        numbers = range(8) if self.calls == 1 else [7] * 8
        lines = [line(number) for number in numbers]
        return {
            "prompt_ids": [each.prompt for each in lines],
            "completion_ids": [each.ids for each in lines],
            "logprobs": None,
            "episode_return": [float(k % 2) for k in range(8)],
        }


def test_an_update_without_weight_is_not_made_and_is_reported(tmp_path: Path) -> None:
    made = trainer(
        tmp_path, focus=FocusConfig(alpha=0, beta=0.5), rollout_func=NoTurn(), max_steps=3, beta=0.1
    )
    kept = Recorder(made)
    made.train()
    ends = [*kept.before, parameters(made)]
    moved = [any(not torch.equal(one[name], other[name]) for name in one) for one, other in pairwise(ends)]
    assert moved == [True, False, False]
    history = [entry["focus/skipped_updates"] for entry in made.state.log_history[:-1]]
    assert history == [0, 1, 1]
    assert made.state.log_history[1]["focus/action_share"] == 0


def said_of_actions(act: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(each.message) for each in caught if "no action token" in str(each.message)]


def test_a_batch_without_an_action_is_said_once(tmp_path: Path) -> None:
    """Without an action every token weighs the same, so that weights would vanish unnoticed."""
    made = trainer(tmp_path, rollout_func=NoTurn(), max_steps=3)
    said = said_of_actions(made.train)
    assert len(said) == 1
    assert "plain GRPO" in said[0] and "roles = 'tags'" in said[0] and "docs/trl.md" in said[0]
    assert [entry["focus/action_share"] > 0 for entry in made.state.log_history[:-1]] == [True, False, False]
    # Of an evaluation nothing is said, nor where all weights were to be the same.
    made._warned_of_no_action = False
    assert not said_of_actions(lambda: made.evaluate(prompts(2)))
    uniform = trainer(tmp_path, rollout_func=NoTurn(), max_steps=2, focus=FocusConfig(alpha=1, beta=0))
    assert not said_of_actions(uniform.train)


@pytest.mark.parametrize("found", ["1.15.3", "1.17.0", "2.16.0", "1.1.6"])
def test_another_trl_is_refused_by_its_number(found: str, tmp_path: Path) -> None:
    """A real distribution of that name, found before the installed one."""
    folder = tmp_path / f"trl-{found}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: trl\nVersion: {found}\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import actfocus.integrations.trl"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: actfocus.integrations.trl needs trl>=1.16,<1.17, and trl {found} is installed:"
        " pip install 'actfocus[trl]' (or pip install 'trl>=1.16,<1.17')"
    )


def test_no_trl_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    with pytest.raises(ImportError, match=r"and trl is not installed: pip install 'actfocus\[trl\]'"):
        version.require_trl()
