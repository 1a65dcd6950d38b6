"""verl's task runner, with our trainer in the place of verl's synchronous one."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.utils import need_reference_policy
from verl.trainer.ppo.v1 import trainer_base

from actfocus.config import FocusConfig
from actfocus.integrations.verl.loop import LOOPS
from actfocus.integrations.verl.settings import SECTION, needs_reference, read_focus, refuse_unsuitable

# What `@ray.remote` leaves of a class cannot be inherited from; the class itself can.
_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class ActFocusTaskRunner(_TaskRunner):  # type: ignore[misc, unused-ignore]
    """The actor that trains."""

    def run(self, config: DictConfig) -> None:
        """Train."""
        from actfocus.integrations.verl.trainer import ActFocusTrainer

        # verl looks its trainer up by the mode, and reads the mode elsewhere as well: it must stay "sync".
        # This process is the runner's own, so nobody else sees the registry.
        trainer_base.TRAINER_REGISTRY["sync"] = ActFocusTrainer
        super().run(config)


def prepare(config: DictConfig) -> tuple[FocusConfig, list[str]]:
    """Check a composed configuration, and set in it what ActFocus needs of verl.

    Returns:
        The settings, and a line on each thing that was set.

    Raises:
        ConfigError: If a setting is wrong or does not suit.
    """
    focus = read_focus(config)
    refuse_unsuitable(config, focus)
    notes = []
    with open_dict(config):
        config[SECTION] = OmegaConf.create(focus.model_dump())
        if needs_reference(focus) and not need_reference_policy(config):
            config.actor_rollout_ref.actor.use_kl_loss = True
            config.actor_rollout_ref.actor.kl_loss_coef = 0.0
            notes.append(
                f"the signal {focus.signal} needs verl's reference worker: actor.use_kl_loss=True with"
                " kl_loss_coef=0, which leaves the loss as it is"
            )
        agent = config.actor_rollout_ref.rollout.agent
        if agent.agent_loop_config_path is None:
            agent.agent_loop_config_path = str(LOOPS)
    return focus, notes
