"""`python -m actfocus.integrations.verl …`: verl's own entry point with ActFocus on."""

import sys
from typing import Any

from actfocus.errors import ActfocusError
from actfocus.integrations.verl.version import require_verl


def main() -> None:
    """Train as `python -m verl.trainer.main_ppo` does; settings by `+actfocus.alpha=…` and so on."""
    try:
        require_verl()
    except ImportError as error:
        _stop(error)
    import hydra

    hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)(
        _train
    )()


def _train(config: Any) -> None:
    import ray
    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from actfocus.integrations.verl.runner import ActFocusTaskRunner, prepare

    try:
        focus, notes = prepare(config)
    except ActfocusError as error:
        _stop(error)
    for note in [f"{focus!r}", *notes]:
        print(f"[actfocus] {note}")
    auto_set_device(config)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    run_ppo(config, task_runner_class=ray.remote(ActFocusTaskRunner))


def _stop(error: Exception) -> Any:
    """The user's mistake: one line, no traceback."""
    print(f"actfocus: {error}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
