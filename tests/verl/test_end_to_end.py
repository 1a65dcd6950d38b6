"""What a user types, on the CPU: two steps of PPO and an evaluation, by examples/ and by the command.

Everything is verl's own but the device and the rollout server; the GPU run is not made here (docs/verl.md).
The script makes its data set and trains on it; behind its own settings it is given what `tiny` on two cores
needs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.verl.config import MODEL, ON_CPU

SCRIPT = Path(__file__).parents[2] / "examples" / "verl_ppo.sh"
COMMAND = [
    *(sys.executable, "-m", "actfocus.integrations.verl"),
    *("+actfocus.alpha=0.1", "+actfocus.beta=0.5", "algorithm.adv_estimator=gae"),
    "actor_rollout_ref.model.lora_rank=4",
]
STEP = re.compile(r"step:(\d+) - (.*)")


def _number(text: str) -> float:
    """Of `0.5`, `np.float64(0.5)` and the like."""
    return float(text.rpartition("(")[2].partition(")")[0])


def metrics(output: str) -> dict[int, dict[str, float]]:
    """What verl's console logger wrote, by step."""
    found: dict[int, dict[str, float]] = {}
    for step, line in STEP.findall(output):
        pairs = (part.partition(":") for part in line.split(" - "))
        found.setdefault(int(step), {}).update({key: _number(value) for key, _, value in pairs})
    return found


@pytest.mark.parametrize("command", [["bash", str(SCRIPT)], COMMAND], ids=["script", "lora"])
def test_two_steps(command: list[str], levels: list[str], tmp_path: Path) -> None:
    overrides = [
        *ON_CPU,
        *(levels if command is COMMAND else levels[1:]),  # the script has its own for training
        "data.train_batch_size=4",
        "data.max_prompt_length=400",
        "data.max_response_length=160",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.rollout.val_kwargs.n=1",
        "critic.ppo_mini_batch_size=2",
        "trainer.total_training_steps=2",
        "trainer.test_freq=2",
        f"trainer.default_local_dir={tmp_path}/checkpoints",
        "+ray_kwargs.ray_init.num_cpus=16",
        "+ray_kwargs.ray_init.num_gpus=1",
        "+ray_kwargs.ray_init.include_dashboard=False",
    ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*command, *overrides],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "MODEL": MODEL},
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    if command is not COMMAND:
        assert "data/verl-frozen-lake/train.parquet: 4096 levels" in done.stdout
    assert "[actfocus] the signal energy needs verl's reference worker" in done.stdout
    steps = metrics(done.stdout + done.stderr)
    assert set(steps) == {1, 2}
    for figures in steps.values():
        assert 0 < figures["focus/action_share"] < 0.5
        assert 0 < figures["focus/weight_per_token"] < 1
        assert 1 <= figures["focus/action_weight"] <= 1.5
        assert figures["actor/grad_norm"] > 0 and figures["critic/vf_loss"] > 0
    assert any(name.startswith("val-") for name in steps[2])
