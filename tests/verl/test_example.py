"""The script for a machine with GPUs: its configuration composes and passes verl's own checks and ours."""

import shlex
from pathlib import Path

import pytest
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from actfocus.config import FocusConfig
from actfocus.integrations.verl.dataset import main
from actfocus.integrations.verl.runner import prepare
from tests.verl.config import MODEL, composed

SCRIPT = Path(__file__).parents[2] / "examples" / "verl_ppo.sh"


def overrides() -> list[str]:
    """What the script hands to the entry point, with its own defaults."""
    command = SCRIPT.read_text().partition("exec python -m actfocus.integrations.verl")[2]
    values = {"DATA": "data", "MODEL": MODEL, "GPUS": "1", "ENV": "frozen-lake", "@": ""}
    for name, value in values.items():
        command = command.replace(f"${name}", value)
    return [word for word in shlex.split(command.replace("\\\n", " ")) if word]


def test_its_configuration_is_accepted() -> None:
    given = overrides()
    assert len(given) > 30 and not any("$" in word for word in given)
    config = composed(*given, on_cpu=False)
    focus, notes = prepare(config)
    assert focus == FocusConfig(alpha=0.1, beta=0.5, signal="energy") and len(notes) == 1
    assert need_critic(config) and need_reference_policy(config)
    validate_config(config=config, use_reference_policy=True, use_critic=True)


@pytest.mark.parametrize("env", ["frozen-lake", "webshop"])
def test_its_data_sets_are_read_by_verl(env: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer
    from verl.trainer.ppo.utils import create_rl_dataset

    main(["--env", env, "--train", "5", "--test", "3", "--out", str(tmp_path)])
    config = composed()
    data = create_rl_dataset(
        [f"{tmp_path}/train.parquet"], config.data, AutoTokenizer.from_pretrained(MODEL), None, is_train=True
    )
    assert len(data) == 5
    row = data[4]
    assert row["agent_name"] == env and row["extra_info"]["split"] == "train" and row["index"] == 4
    assert row["raw_prompt"][0]["content"] == f"{env} level {row['extra_info']['level']}"


def test_a_wrong_environment_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--env", "frozen-lak", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "did you mean 'frozen-lake'" in capsys.readouterr().err
