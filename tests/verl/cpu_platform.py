"""A platform for verl's engines on a CPU, by verl's own extension point; for tests alone.

verl ships platforms for accelerators only, but loads others by `VERL_USE_EXTERNAL_MODULES` and names them by
`VERL_PLATFORM`. With this one its FSDP engine, workers and trainer run unchanged, over gloo.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForTokenClassification
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

_init_process_group = torch.distributed.init_process_group


def _init_over_gloo(backend: str | None = None, **kwargs: Any) -> None:
    """verl names a backend for the CPU and one for the device; torch refuses the same device twice."""
    _init_process_group("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, **kwargs)


torch.distributed.init_process_group = _init_over_gloo
_load_critic = AutoModelForTokenClassification.from_pretrained


def _load_critic_for_a_cpu(*args: Any, **kwargs: Any) -> Any:
    """verl asks for flash attention in a critic whatever its settings say."""
    return _load_critic(*args, **{**kwargs, "attn_implementation": "sdpa"})


AutoModelForTokenClassification.from_pretrained = _load_critic_for_a_cpu
# The engine pins the reference's weights for their way to the device: there is none.
torch.Tensor.pin_memory = lambda self, *args: self  # type: ignore[method-assign]


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


DEVICE_MODULE = SimpleNamespace(
    **{name: getattr(torch.cpu, name) for name in ("is_available", "synchronize", "device_count")},
    current_device=lambda: torch.device("cpu"),
    get_device_name=lambda: "CPU",
    set_device=_nothing,
    empty_cache=_nothing,
    ipc_collect=_nothing,
    max_memory_allocated=_zero,
    max_memory_reserved=_zero,
    memory_allocated=_zero,
    memory_reserved=_zero,
    reset_peak_memory_stats=_nothing,
    manual_seed=torch.manual_seed,
    manual_seed_all=torch.manual_seed,
    mem_get_info=lambda *args: (1, 2),
    get_rng_state=torch.get_rng_state,
    set_rng_state=torch.set_rng_state,
    is_initialized=lambda: True,
)
"""What verl calls of `torch.cuda`."""


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name = "cpu"
    vendor_name = "none"
    device_module = DEVICE_MODULE  # type: ignore[assignment]

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"  # goes to Tensor.to, where cuda has an index

    def device_count(self) -> int:
        return 1

    set_device = synchronize = manual_seed_all = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "NO_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def ray_resource_name(self) -> str:
        return "GPU"  # Ray is told that there is one; nothing looks for it

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False
