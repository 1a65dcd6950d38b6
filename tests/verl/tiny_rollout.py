"""A rollout backend of verl's that serves `tiny` on the CPU, registered beside vLLM's; for tests alone.

verl's load balancer, client, agent loops, worker and checkpoint manager are the real ones; this supplies what
vLLM would: a server actor that samples from the weights the actor sends, token ids in and token ids out.
"""

from typing import Any

import ray
import torch
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "tiny"


class Server:
    """The methods of verl's server actors that are called of one."""

    def __init__(self, path: str, seed: int = 0) -> None:
        from transformers import AutoModelForCausalLM

        from actfocus.models.language_model import LanguageModel

        torch.set_num_threads(1)
        self.model = LanguageModel(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))
        self.generator = torch.Generator().manual_seed(seed)
        self.version: int | None = None
        self.calls: list[dict[str, Any]] = []

    @torch.no_grad()
    def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: Any = None,
        video_data: Any = None,
    ) -> TokenOutput:
        from actfocus.rollout.context_cache import ContextCache
        from actfocus.rollout.sampler import draw_tokens

        self.calls.append({"request": request_id, "prompt": list(prompt_ids), **sampling_params})
        cache = ContextCache.empty(self.model, 1)
        hidden = cache.append([list(prompt_ids)])
        ids: list[int] = []
        logprobs: list[float] = []
        while len(ids) < sampling_params["max_tokens"]:
            uniform = torch.rand(1, generator=self.generator, dtype=torch.float64)
            token, logprob = draw_tokens(self.model.head(hidden), uniform, sampling_params["temperature"])
            ids.append(int(token))
            logprobs.append(float(logprob))
            if ids[-1] in sampling_params["stop_token_ids"]:
                break
            hidden = cache.append([ids[-1:]])
        return TokenOutput(
            token_ids=ids,
            log_probs=logprobs if sampling_params.get("logprobs") else None,
            stop_reason="completed",
            extra_fields={"global_steps": self.version},
        )

    def load(self, weights: dict[str, torch.Tensor], version: int) -> None:
        self.model.model.load_state_dict(weights, strict=False)
        self.version = version

    def seen(self) -> list[dict[str, Any]]:
        return self.calls

    def sleep(self) -> None: ...

    def wake_up(self) -> None: ...

    def resume_generation(self) -> None: ...

    def abort_all_requests(self, reject_request: bool = False) -> None: ...

    def clear_kv_cache(self) -> None: ...


class Replica(RolloutReplica):
    async def launch_servers(self) -> None:
        server = ray.remote(Server).options(name=f"tiny_server_{self.replica_rank}", num_cpus=0)
        self._server_handle = server.remote(self.model_config.path)
        self._server_address = f"tiny-{self.replica_rank}"
        self.servers = [self._server_handle]


class Adapter(BaseRollout):
    """Lives in the actor's worker and hands its weights to the server."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(self, weights: Any, global_steps: int = 0, **kwargs: Any) -> None:
        server = ray.get_actor(f"tiny_server_{torch.distributed.get_rank()}")
        state = {name: _whole(tensor).detach().cpu().float() for name, tensor in weights}
        await server.load.remote(state, global_steps)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


_ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.Adapter"
RolloutReplicaRegistry.register(NAME, lambda: Replica)
