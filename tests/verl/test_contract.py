"""The seams of verl that this integration stands on; where one has moved, the message names the range."""

import asyncio
import inspect
from importlib.metadata import version
from typing import Any

import pytest
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl.experimental.agent_loop import agent_loop, single_turn_agent_loop
from verl.single_controller.base import WorkerGroup
from verl.trainer import main_ppo
from verl.trainer.ppo import core_algos
from verl.trainer.ppo import utils as ppo_utils
from verl.trainer.ppo.v1 import trainer_base, trainer_sync
from verl.utils import config as verl_config
from verl.utils import device
from verl.utils import tensordict_utils as tu
from verl.workers import engine_workers
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput
from verl.workers.utils import losses, padding

import verl
from actfocus.integrations.verl.version import SUPPORTED
from tests.verl.config import MODEL, composed

MESSAGE = (
    f"a seam of verl has moved: actfocus.integrations.verl supports verl{SUPPORTED}, and verl"
    f" {version('verl')} is installed. Install a supported one, or adapt the integration and its range in"
    " version.py. The seam: "
)


def hold(condition: Any, seam: str) -> None:
    assert condition, MESSAGE + seam


SIGNATURES = [
    (trainer_base.PPOTrainer, "__init__", ["self", "config"]),
    (trainer_base.PPOTrainer, "_init_resource_pool_mgr", ["self"]),
    (trainer_base.PPOTrainer, "_compute_ref_log_prob", ["self", "batch", "metrics"]),
    (trainer_base.PPOTrainer, "_compute_advantage", ["self", "batch", "metrics"]),
    (trainer_base.PPOTrainer, "_update_actor", ["self", "batch", "metrics"]),
    (engine_workers.TrainingWorker, "__init__", ["self", "config"]),
    (
        FSDPEngineWithLMHead,
        "prepare_model_outputs",
        ["self", "output", "output_args", "micro_batch", "logits_processor_func"],
    ),
    (tu, "make_iterator", ["tensordict", "mini_batch_size", "epochs", "seed", "dataloader_kwargs"]),
    (tu, "get_non_tensor_data", ["data", "key", "default"]),
    (padding, "response_from_nested", ["tensor", "response_mask"]),
    (padding, "response_to_nested", ["tensor", "response_mask"]),
    (losses, "ppo_loss", ["config", "model_output", "data", "dp_group"]),
    (main_ppo, "run_ppo", ["config", "task_runner_class"]),
    (ppo_utils, "need_reference_policy", ["config"]),
    (ppo_utils, "need_critic", ["config"]),
    (verl_config, "validate_config", ["config", "use_reference_policy", "use_critic"]),
    (device, "auto_set_device", ["config"]),
    (agent_loop.AgentLoopBase, "run", ["self", "sampling_params", "kwargs"]),
    (
        single_turn_agent_loop.SingleTurnAgentLoop,
        "run",
        ["self", "sampling_params", "priority", "kwargs"],
    ),
    (tq, "kv_batch_get", ["keys", "partition_id", "select_fields"]),
    (tq, "kv_batch_put", ["keys", "partition_id", "fields", "tags", "data_parser"]),
]


@pytest.mark.parametrize(("owner", "name", "expected"), SIGNATURES, ids=[entry[1] for entry in SIGNATURES])
def test_names_and_order_of_arguments(owner: Any, name: str, expected: list[str]) -> None:
    function = getattr(owner, name, None)
    hold(function is not None, f"{owner.__name__}.{name} is gone")
    found = list(inspect.signature(function).parameters)
    hold(found == expected, f"{owner.__name__}.{name}{tuple(found)}, expected {tuple(expected)}")


def test_the_runner_behind_the_actor() -> None:
    metadata = getattr(main_ppo.TaskRunnerV1, "__ray_metadata__", None)
    runner = getattr(metadata, "modified_class", None)
    hold(inspect.isclass(runner), "TaskRunnerV1.__ray_metadata__.modified_class")
    hold(list(inspect.signature(runner.run).parameters)[:2] == ["self", "config"], "TaskRunnerV1.run")
    source = inspect.getsource(runner.run)
    hold("get_trainer_cls(config.trainer.v1.trainer_mode)" in source, "TaskRunnerV1.run looks its trainer up")


def test_the_registry() -> None:
    hold(trainer_base.TRAINER_REGISTRY.get("sync") is trainer_sync.PPOTrainerSync, "TRAINER_REGISTRY['sync']")
    hold(trainer_base.get_trainer_cls("sync") is trainer_sync.PPOTrainerSync, "get_trainer_cls")


def test_the_order_of_a_step() -> None:
    """Reference before advantages before critic and actor: the signal must be there, the update not made."""
    source = inspect.getsource(trainer_base.PPOTrainer._step_once)
    calls = ["_balance_batch", "_compute_old_log_prob", "_compute_ref_log_prob", "_compute_values",
             "_compute_advantage", "_update_critic", "_update_actor"]  # fmt: skip
    places = [source.find(f"self.{call}(") for call in calls]
    hold(-1 not in places and places == sorted(places), f"_step_once calls {calls} at {places}")


def test_workers_are_made_of_classes_that_can_be_replaced() -> None:
    worker = engine_workers.ActorRolloutRefWorker
    for name in ("actor_worker_cls", "ref_worker_cls"):
        hold(getattr(worker, name, None) is engine_workers.TrainingWorker, f"ActorRolloutRefWorker.{name}")
    source = inspect.getsource(trainer_base.PPOTrainer._init_resource_pool_mgr)
    hold(
        "self.role_worker_mapping[role] = ray.remote(ActorRolloutRefWorker)" in source, "role_worker_mapping"
    )
    source = inspect.getsource(engine_workers.TrainingWorker.train_mini_batch)
    hold("seed=seed + self.engine.get_data_parallel_rank()" in source, "the seed of a rank's mini-batches")
    hold("tu.make_iterator" in source, "train_mini_batch splits with make_iterator")


def test_the_normaliser() -> None:
    source = inspect.getsource(FSDPEngine.forward_backward_batch)
    hold('batch_num_tokens = data["loss_mask"].sum()' in source, "batch_num_tokens counts loss_mask")
    values, mask = torch.arange(6.0).view(2, 3), torch.tensor([[1, 1, 0], [1, 0, 0]])
    loss = core_algos.agg_loss(values, mask, "token-mean", dp_size=2, batch_num_tokens=5)
    hold(float(loss) == pytest.approx(4 / 5 * 2), f"agg_loss token-mean gives {float(loss)}")


def test_fields_of_the_queue() -> None:
    source = inspect.getsource(trainer_base.PPOTrainer._compute_advantage)
    for name in ("advantages", "returns", "response_mask", "old_log_probs", "ref_log_prob", "rm_scores"):
        hold(f'"{name}"' in source, f"_compute_advantage knows no field {name}")
    output = agent_loop.AgentLoopOutput(
        prompt_ids=[1],
        response_ids=[2, 3],
        response_mask=[1, 1],
        reward_score=0.5,
        metrics={},
        extra_fields={"k": 1},
    ).as_dict()
    hold(
        {"prompts", "responses", "response_mask", "rm_scores", "extra_fields"} <= output.keys(),
        f"{sorted(output)}",
    )
    hold(
        output["rm_scores"].tolist() == [0, 0.5], "the reward does not lie on the last token of the response"
    )
    hold(output["extra_fields"] == {"k": 1}, "extra_fields are not handed on")


def test_a_batch_of_the_queue() -> None:
    meta = getattr(tq, "KVBatchMeta", None)
    hold(meta is not None, "transfer_queue.KVBatchMeta is gone")
    names = ["keys", "tags", "partition_id", "fields", "extra_info"]
    found = list(inspect.signature(meta).parameters)
    hold(found == names, f"KVBatchMeta{tuple(found)}, expected {tuple(names)}")
    batch = meta(keys=["a", "b"], tags=[{"is_padding": True}, {}], partition_id="train")
    hold(batch.keys == ["a", "b"] and len(batch) == 2, f"KVBatchMeta.keys are {batch.keys}")
    hold(batch.tags == [{"is_padding": True}, {}], f"KVBatchMeta.tags are {batch.tags}")
    hold(batch.extra_info == {}, f"KVBatchMeta.extra_info is {batch.extra_info!r}, and not to be written to")
    source = inspect.getsource(trainer_base)
    hold('tag.get("is_padding", False)' in source, "the tag of rows that verl pads a batch with")
    hold('metadata["no_lora_adapter"] = True' in source, "the order to switch adapters off")


def test_ranks_of_the_actor() -> None:
    """`_dispatch_info["actor"]`: the data-parallel rank of each worker, there once a batch is balanced."""
    found = getattr(WorkerGroup(resource_pool=None), "_dispatch_info", None)
    hold(found == {}, f"WorkerGroup._dispatch_info is {found!r}")
    source = inspect.getsource(trainer_base.PPOTrainer._balance_batch)
    for line in (
        'role, worker_group = "actor", self.actor_rollout_wg',
        "worker_group._dispatch_info[role] = dp_rank_mapping",
        "dp_size = max(dp_rank_mapping) + 1",
    ):
        hold(line in source, f"_balance_batch has no line {line!r}")


def test_what_a_loop_has() -> None:
    config = composed()

    async def made() -> Any:
        return single_turn_agent_loop.SingleTurnAgentLoop(
            trainer_config=agent_loop.DictConfigWrap(config),
            server_manager="server",
            tokenizer=AutoTokenizer.from_pretrained(MODEL),
            processor=None,
            dataset_cls=None,
            data_config=agent_loop.DictConfigWrap(config.data),
        ), asyncio.get_running_loop()

    loop, running = asyncio.run(made())
    hold(getattr(loop, "loop", None) is running, "AgentLoopBase.loop is not the running event loop")
    hold(getattr(loop, "server_manager", None) == "server", "AgentLoopBase.server_manager")
    hold(hasattr(loop, "tokenizer"), "AgentLoopBase.tokenizer")
    found = getattr(loop, "rollout_config", None)
    hold(found == config.actor_rollout_ref.rollout, "AgentLoopBase.rollout_config")


def test_what_a_loop_is_given() -> None:
    found = list(inspect.signature(agent_loop.AgentLoopBase.__init__).parameters)
    hold(
        found[:6] == ["self", "trainer_config", "server_manager", "tokenizer", "processor", "dataset_cls"],
        str(found),
    )
    found = list(inspect.signature(LLMServerClient.generate).parameters)
    hold(
        found[:4] == ["self", "request_id", "prompt_ids", "sampling_params"],
        f"LLMServerClient.generate{found}",
    )
    hold({"token_ids", "log_probs", "extra_fields"} <= TokenOutput.model_fields.keys(), "TokenOutput")
    source = inspect.getsource(agent_loop.AgentLoopWorker._run_agent_loop)
    hold("hydra.utils.instantiate" in source, "loops are not made by hydra")
    source = inspect.getsource(agent_loop.AgentLoopWorker._compute_score)
    hold("if final_output.reward_score is None" in source, "a reward that the loop gives is not kept")


def test_settings_that_are_read() -> None:
    config = composed()
    for path in (
        "trainer.use_v1", "trainer.v1.trainer_mode", "trainer.critic_warmup",
        "actor_rollout_ref.actor.loss_agg_mode", "actor_rollout_ref.actor.policy_loss.loss_mode",
        "actor_rollout_ref.actor.shuffle", "actor_rollout_ref.actor.ppo_epochs",
        "actor_rollout_ref.actor.data_loader_seed", "actor_rollout_ref.actor.ppo_mini_batch_size",
        "actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.actor.kl_loss_coef",
        "actor_rollout_ref.actor.strategy", "actor_rollout_ref.model.use_fused_kernels",
        "actor_rollout_ref.ref.ulysses_sequence_parallel_size", "actor_rollout_ref.rollout.temperature",
        "actor_rollout_ref.rollout.n", "actor_rollout_ref.rollout.prompt_length",
        "actor_rollout_ref.rollout.response_length", "algorithm.rollout_correction.bypass_mode",
        "distillation.enabled",
    ):  # fmt: skip
        node: Any = config
        for part in path.split("."):
            hold(part in node, f"the configuration has no {path}")
            node = node[part]
    for name in ("agent_loop_config_path", "default_agent_loop"):
        hold(name in config.actor_rollout_ref.rollout.agent, name)


def test_an_iterator_yields_rows() -> None:
    rows = TensorDict({"row": torch.arange(4)}, batch_size=4)
    found = [part["row"].tolist() for part in tu.make_iterator(rows, 2, 1, 0, {"shuffle": False})]
    hold(found == [[0, 1], [2, 3]], f"make_iterator yields {found}")


def test_the_message_names_the_range() -> None:
    with pytest.raises(AssertionError, match=r"supports verl==0\.9\.1, and verl 0\.9\.1"):
        hold(False, "none")
    assert verl.__version__ == "0.9.1"
