"""What each of two processes runs in `test_distributed.py`: gradients in float64, then a small training.

    python -m tests.training.one_of_two CONFIG MODEL OUT

`OUT` gets `gradients-RANK-SIZE.safetensors` for each size of mini-batch, and the run `run`.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from actfocus.config import Config, ModelConfig, load_config
from actfocus.distributed import Processes
from actfocus.models.loading import load
from actfocus.report.progress import SilentProgress
from actfocus.rollout.batch import collate
from actfocus.training.run import train
from tests.training.by_hand import set_scene
from tests.training.conftest import demonstrate, double

SIZES = [3, 1]
"""Mini-batches; with the last one a rank has nothing to do."""


def gradients(config: Config, model: Path, size: int, processes: Processes) -> dict[str, torch.Tensor]:
    """Gradient of the last mini-batch of an update that moves nothing, and every figure of the batch."""
    optimizer = {"lr": 1e-300, "max_grad_norm": 1e9, "mini_batch": size, "micro_batch": 2}
    algorithm = {**config.algorithm.model_dump(), "critic_lr": 1e-300, "kl_coefficient": 0.1}
    settings = {**config.model_dump(), "optimizer": optimizer, "algorithm": algorithm}
    kept, torch.Tensor.float = torch.Tensor.float, lambda tensor: tensor  # type: ignore[method-assign,assignment]
    try:
        batch = double(collate(demonstrate(model)))
        agent = load(ModelConfig(name=str(model)))
        scene = set_scene(Config.model_validate(settings), agent, processes, batch, by_hand=False)
        metrics = scene.updater.update(scene.batch, step=1)
    finally:
        torch.Tensor.float = kept  # type: ignore[method-assign]
    figures = {name: t.clone() for name, t in vars(batch).items() if isinstance(t, torch.Tensor)}
    of_metrics = {f"metrics.{name}": torch.tensor(figure).double() for name, figure in metrics.items()}
    return {"gradients": scene.gradients()} | figures | of_metrics


def main(config_path: str, model: str, out: str) -> None:
    config, processes = load_config(Path(config_path)), Processes()
    for size in SIZES:
        found = gradients(config, Path(model), size, processes)
        save_file(found, Path(out) / f"gradients-{processes.rank}-{size}.safetensors")
    summary = train(config, Path(out) / "run", progress=SilentProgress())
    print(json.dumps({"rank": processes.rank, "count": processes.count, "steps": summary["steps"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
