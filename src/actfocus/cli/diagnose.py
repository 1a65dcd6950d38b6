"""`actfocus diagnose`: is there an action bottleneck in this agent?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import ValidationError

from actfocus.cli.evaluate import check_checkpoint
from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome
from actfocus.cli.train import (
    check_can_be_made,
    check_game,
    check_model,
    check_shipped,
    saved_config,
    timestamp,
)
from actfocus.config import Config, EnvConfig, FocusConfig, ModelConfig, explain
from actfocus.diagnosis.request import Request
from actfocus.errors import ConfigError, RunError
from actfocus.report.output import printable
from actfocus.report.progress import make_progress


@dataclass(frozen=True)
class Diagnose:
    """Ask whether there is an action bottleneck in an agent: does energy follow what is at stake?

    A model in an environment, sampled in groups; a run, sampled anew or as it was recorded:
        actfocus diagnose --model tiny --env frozen-lake
        actfocus diagnose runs/NAME
        actfocus diagnose runs/NAME --recorded

    Transcripts of any other agent (the form of the file is in docs/diagnose.md):
        actfocus diagnose --transcripts examples/transcripts.jsonl --model smollm2-135m
    """

    run_directory: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN", name="run", help_behavior_hint="")
    ] = None
    """A run directory, if that is what to diagnose."""
    recorded: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Take the episodes that the run has recorded, instead of sampling its last checkpoint."""
    step: Annotated[int | None, optional("INT")] = None
    """Which checkpoint of the run, or with --recorded the episodes of which step; the last one, or all."""
    transcripts: Annotated[Path | None, optional("FILE")] = None
    """Episodes from elsewhere, one JSON object a line: messages, group, return."""
    model: Annotated[str | None, optional("MODEL")] = None
    """`tiny` (if not given), `smollm2-135m`, a Hugging Face id, a folder, or a .gguf file."""
    reference: Annotated[str | None, optional("MODEL")] = None
    """The frozen model that energy, entropy and shift are of; if not given, the model itself."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the passes."""
    env: Annotated[EnvConfig, tyro.conf.arg(name="env")] = EnvConfig()  # noqa: RUF009 - frozen
    """The game; what is left out is the game's own constant."""
    groups: int = 64
    """Start states to sample."""
    group: int = 8
    """Episodes of each."""
    seed: Annotated[int | None, optional("INT")] = None
    """Seed of the start states and of all chance; if not given, the run's, or 0."""
    context: Annotated[int | None, optional("INT")] = None
    """Tokens in an episode, at most; if not given, the run's, or 3600."""
    response: Annotated[int | None, optional("INT")] = None
    """Tokens in a reply, at most; if not given, the run's, or 400."""
    alpha: Annotated[float | None, optional("FLOAT")] = None
    """Weight of reasoning tokens, for the gradient after weighting; if not given, the run's, or 0.1."""
    beta: Annotated[float | None, optional("FLOAT")] = None
    """How much the signal adds to the weight of an action token; if not given, the run's, or 0.5."""
    other_weight: Annotated[float | None, optional("FLOAT")] = None
    """Weight of tokens in neither span; if not given, the run's, or alpha."""
    gradient_groups: Annotated[int | None, optional("INT")] = None
    """Groups for the gradient share, of those whose returns vary; if not given, all; 0 leaves it out."""
    micro_batch: int = 8
    """Episodes per forward pass: a matter of memory."""
    out: Annotated[Path | None, optional("DIR")] = None
    """Folder to create for diagnosis.json and the picture; if not given, one under runs/ with the time."""
    json: Json = False

    def run(self) -> Outcome:
        """Check all that can be checked without torch, then diagnose."""
        self._check_figures()
        request = self._request()
        out = self.out or Path("runs") / f"diagnosis-{self._name()}-{timestamp()}"
        if out.exists() or out.is_symlink():
            raise RunError(f"{out} exists already; choose another --out")
        check_can_be_made(out)
        from actfocus.diagnosis.diagnose import diagnose
        from actfocus.diagnosis.tables import correlation_table, described, gradient_table

        progress = make_progress()
        try:
            result = diagnose(request, out, progress=progress)
        finally:
            progress.end()
        tables = [correlation_table(result)]
        if result["gradient"] is not None:
            tables.append(gradient_table(result["gradient"]))
        lines = [
            *described(result),
            f"Picture: {out}/{result['pictures'][0]}",
            f"Figures: {out}/diagnosis.json",
        ]
        return Outcome(result | {"out": str(out)}, [*tables, *lines])

    def _check_figures(self) -> None:
        least = {
            "groups": 1,
            "group": 2,
            "micro_batch": 1,
            "seed": 0,
            "context": 16,
            "response": 1,
            "step": 0,
            "gradient_groups": 0,
        }
        for key, low in least.items():
            value = getattr(self, key)
            if value is not None and value < low:
                flag = key.replace("_", "-")
                raise ConfigError(f"--{flag}: input should be greater than or equal to {low}, got {value}")
        if self.gradient_groups == 1:
            raise ConfigError("--gradient-groups: one group has no spread, take 0 or at least 2")

    def _request(self) -> Request:
        common: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("seed", "context", "response", "groups", "group", "micro_batch", "gradient_groups")
        }
        if self.run_directory is not None:
            return self._run_request(self.run_directory, common)
        for key, absent in (("recorded", False), ("step", None)):
            if getattr(self, key) is not absent:
                raise ConfigError(f"--{key} goes with a run directory, and none is given")
        if self.transcripts is not None:
            self._refuse_sampling("--transcripts")
            if self.model is None:
                raise ConfigError("--transcripts needs --model: whose tokens the texts are to be read as")
            if self.env.settings() or (self.env.name != EnvConfig().name and self.model != "tiny"):
                raise ConfigError("--env does not go with --transcripts: nothing is played")
            from actfocus.diagnosis.transcripts import read_transcripts

            read_transcripts(self.transcripts)  # refuses a malformed line at once
        else:
            check_game(self.env)
        for name in (self.model or "tiny", self.reference):
            if name is not None:
                check_shipped(Config(env=self.env, model=ModelConfig(name=name)))
                check_model(name)
        return Request(
            transcripts=self.transcripts,
            model=self.model or "tiny",
            reference=self.reference,
            precision=self.precision,
            env=self.env,
            focus=self._focus(FocusConfig()),
            **common,
        )

    def _refuse_sampling(self, source: str) -> None:
        """Refuse what would have no effect where the episodes are there already."""
        for key in ("groups", "group", "seed", "context", "response"):
            if getattr(self, key) != getattr(Diagnose, key):
                raise ConfigError(f"--{key} does not go with {source}: nothing is sampled")

    def _run_request(self, run: Path, common: dict[str, Any]) -> Request:
        """A run has its own model and game; what would contradict it is refused."""
        for key in ("transcripts", "model", "reference"):
            if getattr(self, key) is not None:
                raise ConfigError(f"--{key} does not go with a run directory: {run} has its own")
        if self.env != EnvConfig() or self.precision != "float32":
            key = "--env" if self.env != EnvConfig() else "--precision"
            raise ConfigError(f"{key} does not go with a run directory: {run} has its own")
        if self.recorded:
            self._refuse_sampling("--recorded")
        config = saved_config(run)
        check_game(config.env)
        check_checkpoint(run, None if self.recorded else self.step)
        if self.recorded and not any(run.glob("episodes/step_*.jsonl.gz")):
            raise RunError(f"{run} has no recorded episodes (save_episodes_every)")
        return Request(
            run=run, step=self.step, recorded=self.recorded, focus=self._focus(config.focus), **common
        )

    def _focus(self, base: FocusConfig) -> FocusConfig:
        given = {key: getattr(self, key) for key in ("alpha", "beta", "other_weight")}
        changes = {key: value for key, value in given.items() if value is not None}
        try:
            return FocusConfig.model_validate(base.model_dump() | changes)
        except ValidationError as error:
            raise ConfigError(explain(error, FocusConfig)) from None

    def _name(self) -> str:
        if self.run_directory is not None:
            return self.run_directory.resolve().name
        if self.transcripts is not None:
            return printable(self.transcripts.stem)[:50]  # a folder's name has room for 255 bytes
        return self.env.name.replace(":", "-")
