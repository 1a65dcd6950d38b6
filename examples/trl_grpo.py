"""Train the shipped `tiny` on FrozenLake with TRL's GRPO and ActFocus: on a CPU, in a few minutes.

    pip install -e '.[trl]'
    python examples/trl_grpo.py

Prints the success rate before and after, on start states that training never sees. With `--alpha 1 --beta 0`
the same script is plain GRPO.
"""

import argparse
import tempfile
import time

from trl import GRPOConfig

from actfocus.config import Config, EvaluationConfig
from actfocus.distributed import Processes
from actfocus.evaluation import Evaluation, evaluate
from actfocus.integrations.trl import ActFocusGRPOTrainer, EnvironmentRollout, FocusConfig, episode_return
from actfocus.models.chat import Chat
from actfocus.models.language_model import LanguageModel
from actfocus.models.registry import tiny_path

PROMPTS, GROUP = 8, 8


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--alpha", type=float, default=0.1, help="weight of reasoning tokens")
    parser.add_argument("--beta", type=float, default=0.5, help="what the energy may add to an action token")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument(
        "--states", type=int, default=128, help="start states of an evaluation, 2 episodes each"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def success(trainer: ActFocusGRPOTrainer, states: int) -> Evaluation:
    """The evaluation of `actfocus train`: fixed start states, temperature 0.5."""
    config = Config.model_validate(
        {"env": {"name": "frozen-lake", "success_rate": 1.0}, "rollout": {"context": 1200, "response": 96}}
    )
    policy, chat = LanguageModel(trainer.model), Chat(trainer.processing_class)
    return evaluate(config, EvaluationConfig(states=states, samples=2), policy, chat, Processes())


def main() -> None:
    """Evaluate, train, evaluate."""
    given, start = arguments(), time.perf_counter()
    rollout = EnvironmentRollout("frozen-lake", success_rate=1.0, context=1200, response=96, seed=given.seed)
    trainer = ActFocusGRPOTrainer(
        model=str(tiny_path("frozen-lake")),
        reward_funcs=episode_return,
        rollout_func=rollout,
        train_dataset=rollout.dataset(PROMPTS * given.steps),
        focus=FocusConfig(alpha=given.alpha, beta=given.beta),
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(prefix="trl_grpo_"),
            num_generations=GROUP,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=PROMPTS * GROUP // 16,
            max_steps=given.steps,
            learning_rate=8e-4,
            warmup_steps=min(3, given.steps - 1),
            epsilon_high=0.28,
            beta=0.5,
            use_bias_correction_kl=False,
            seed=given.seed,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            report_to=[],
            logging_steps=2,
            save_strategy="no",
        ),
    )
    before = success(trainer, given.states)
    trainer.train()
    after = success(trainer, given.states)
    for name, found in (("before", before), ("after", after)):
        print(f"success {name}: {found.success:.3f}, 95 % interval {found.low:.3f} to {found.high:.3f}")
    print(f"{given.steps} steps in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
