#!/usr/bin/env bash
# ActFocus with PPO on FrozenLake, by verl, on one machine with GPUs. We have run it on a CPU alone: docs/verl.md.
#
#     pip install -e '.[verl]' 'verl[vllm]==0.9.1'     # in a checkout; a virtual environment of its own
#     bash examples/verl_ppo.sh                            # or, say: GPUS=4 MODEL=… bash examples/verl_ppo.sh
#
# With alpha=1 and beta=0 this is plain PPO. (Plain `python -m verl.trainer.main_ppo` does not know the games' agent
# loops; set actor_rollout_ref.rollout.agent.agent_loop_config_path for it.)
set -euo pipefail

ENV=${ENV:-frozen-lake}
MODEL=${MODEL:-Qwen/Qwen2.5-0.5B-Instruct}
GPUS=${GPUS:-1}
DATA=${DATA:-data/verl-$ENV}

[ -f "$DATA/train.parquet" ] || python -m actfocus.integrations.verl.dataset --env "$ENV" --train 4096 --test 32 --out "$DATA"

exec python -m actfocus.integrations.verl \
  +actfocus.alpha=0.1 +actfocus.beta=0.5 +actfocus.signal=energy \
  algorithm.adv_estimator=gae algorithm.gamma=1.0 algorithm.lam=1.0 \
  data.train_files="$DATA/train.parquet" data.val_files="$DATA/test.parquet" \
  data.train_batch_size=32 data.max_prompt_length=1200 data.max_response_length=2400 \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.ref.strategy=fsdp2 \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=32 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 \
  actor_rollout_ref.actor.clip_ratio_low=0.2 actor_rollout_ref.actor.clip_ratio_high=0.28 \
  actor_rollout_ref.actor.entropy_coeff=0.001 actor_rollout_ref.actor.loss_agg_mode=token-mean \
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4 \
  actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.4 actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4 \
  actor_rollout_ref.rollout.val_kwargs.temperature=0.5 actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.n=16 \
  critic.model.path="$MODEL" critic.strategy=fsdp2 critic.optim.lr=1e-5 \
  critic.ppo_mini_batch_size=32 critic.ppo_micro_batch_size_per_gpu=4 \
  trainer.n_gpus_per_node="$GPUS" trainer.nnodes=1 trainer.total_training_steps=200 trainer.test_freq=10 \
  trainer.project_name=actfocus trainer.experiment_name="$ENV-ppo" trainer.logger='["console"]' "$@"
