"""`actfocus train`: start a run, continue one, or say what it would need."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Interrupted, Outcome
from actfocus.cli.parsing import flag_value
from actfocus.config import Config, EnvConfig, differences, load_config, to_toml
from actfocus.errors import ConfigError, ModelError, RunError
from actfocus.report.progress import is_first_process, make_progress
from actfocus.report.tables import figures_table, success_table
from actfocus.report.trackers import TrackerName, check_installed, remembered_trackers
from actfocus.run_directory import numbered


@dataclass(frozen=True)
class Train:
    """Train an agent on a game, and measure its success before and after.

    Without options the settings are the paper's where it gives them, on FrozenLake with slips and with the
    model `tiny`. A recipe is tuned for that model and a better start:
        actfocus train --config recipes/frozen-lake-grpo.toml

    Options change single settings of it (alpha 1 and beta 0 is plain GRPO, for comparison):
        actfocus train --config recipes/frozen-lake-grpo.toml --focus.alpha 1 --focus.beta 0

    See what a run would do and need, without doing it; go on with a run that was interrupted:
        actfocus train --env sokoban --algorithm ppo --dry-run
        actfocus train --resume runs/NAME

    The defaults below are those of the file or run that --config or --resume names, if one is named.
    """

    config: Annotated[Path | None, optional("FILE")] = None
    """Settings in a TOML file; other options override it."""
    resume: Annotated[Path | None, optional("RUN")] = None
    """Continue this run directory from its last checkpoint, with the settings that it has."""
    out: Annotated[Path | None, optional("DIR")] = None
    """Run directory to create; if not given, one under runs/ that names game, algorithm, seed and time."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Print the resolved settings, the tokens in a step and an estimate of the memory, and stop."""
    tracker: Annotated[
        tuple[TrackerName | Literal["none"], ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(metavar="{tensorboard,trackio,wandb,none}", help_behavior_hint="(repeatable)"),
    ] = ()
    """Show the run in this tracker too. A resumed run keeps those that it has, unless others are given."""
    json: Json = False
    settings: Annotated[Config, tyro.conf.arg(name="")] = Config()  # noqa: RUF009 - frozen

    def run(self) -> Outcome:
        """Check all that can be checked without torch, then train."""
        trackers = chosen_trackers(self.tracker, self.resume)
        if self.resume is not None:
            if self.out is not None:
                raise RunError("--out does not go with --resume: a resumed run stays where it is")
            check_resume(self.resume, self.settings)
            out = self.resume
        else:
            out = self.out or default_out(self.settings)
            if self.out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise RunError("with several processes give --out: all must agree on the run directory")
            if is_first_process():  # for the others it may exist already, made by the first
                check_new(out)
            check_game(self.settings.env)
            check_shipped(self.settings)
        check_model(self.settings.model.name)
        check_installed(trackers)
        if self.dry_run:
            return _dry_run(self.settings, out)
        summary = _train(self.settings, out, trackers, resumed=self.resume is not None)
        files = {"learning_curve": str(out / "learning_curve.png"), "report": str(out / "report.html")}
        lines = [f"Run: {out}", f"Learning curve: {files['learning_curve']}", f"Report: {files['report']}"]
        return Outcome(summary | files, [success_table(summary), *lines])


def train_defaults(args: Sequence[str]) -> Train:
    """The defaults of the options: from --config's file, or from the run to resume, or the built-in ones.

    It is read before the options are parsed, so that `--help` too shows the defaults that hold.
    """
    file, resume = flag_value(args, "--config"), flag_value(args, "--resume")
    if file is not None:
        return Train(settings=load_config(Path(file)))
    if resume is not None:
        return Train(settings=saved_config(Path(resume)))
    return Train()


def saved_config(run: Path) -> Config:
    """The settings that a run directory was made with."""
    if not run.is_dir():
        raise RunError(f"there is no run directory {run}")
    if not (run / "config.toml").is_file():
        raise RunError(f"{run} is not a run directory: it has no config.toml")
    return load_config(run / "config.toml")


def check_resume(run: Path, config: Config) -> None:
    """Refuse to resume a run with settings that it does not have."""
    changed = differences(saved_config(run), config)
    if changed:
        raise RunError(
            f"cannot resume {run} with changed settings: {', '.join(changed)}; "
            "leave them as they are, or start a new run"
        )


def check_new(out: Path) -> None:
    """Refuse a run directory that exists or cannot be made."""
    if out.exists() or out.is_symlink():
        raise RunError(f"{out} exists already; choose another --out, or go on: actfocus train --resume {out}")
    check_can_be_made(out)


def check_can_be_made(out: Path) -> None:
    """Refuse a folder that cannot be made where it is named."""
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise RunError(f"cannot make {out}: {parent} is not a folder")
    if not os.access(parent, os.W_OK):
        raise RunError(f"cannot make {out}: no permission to write in {parent}")


def check_game(config: EnvConfig) -> None:
    """Refuse a game that cannot be made with these settings, before anything slow is imported."""
    from actfocus.envs import configured_env

    configured_env(config)


def check_shipped(config: Config) -> None:
    """Refuse to start from `tiny` on a game that no `tiny` was warm-started for."""
    from actfocus.models.registry import TINY, TINY_GAMES

    env = config.env.name
    if config.model.name == TINY and env not in TINY_GAMES:
        raise ModelError(
            f"{TINY} ships for {', '.join(TINY_GAMES)} only: give --model, or make one with:"
            f" actfocus warmstart --env {env}"
        )


def check_model(name: str) -> None:
    """Refuse a model that does not exist, before anything slow is imported."""
    from actfocus.models.registry import check_model_name

    check_model_name(name)


def chosen_trackers(given: Sequence[str], resumed: Path | None) -> tuple[str, ...]:
    """The trackers that are asked for; without a word of them, those that a resumed run has."""
    if not given:
        return () if resumed is None else remembered_trackers(resumed)
    if "none" in given and set(given) != {"none"}:
        raise ConfigError("--tracker none does not go with other trackers")
    return tuple(dict.fromkeys(name for name in given if name != "none"))


def default_out(config: Config) -> Path:
    """`runs/<env>-<algorithm>-<focus|uniform>-<seed>-<time>`."""
    kind = "uniform" if config.focus.is_uniform else "focus"
    name = f"{config.env.name}-{config.algorithm.name}-{kind}-{config.seed}-{timestamp()}"
    return Path("runs") / name


def timestamp() -> str:
    """Local time, for the names of run directories."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def _train(config: Config, out: Path, trackers: Sequence[str], *, resumed: bool) -> dict[str, Any]:
    from actfocus.training.run import resume, train

    progress = make_progress()
    try:
        if resumed:
            return resume(out, progress=progress, trackers=trackers)
        return train(config, out, progress=progress, trackers=trackers)
    except KeyboardInterrupt:
        if (out / "config.toml").is_file():
            kept = max(numbered(out / "checkpoints"), default=None)
            lost = "without a checkpoint yet, so it will begin anew" if kept is None else f"kept: step {kept}"
            raise Interrupted(f"interrupted ({lost}); go on with: actfocus train --resume {out}") from None
        raise Interrupted("interrupted before the run began; nothing is left of it") from None
    finally:
        progress.end()


def _dry_run(config: Config, out: Path) -> Outcome:
    from actfocus.training.plan import plan

    figures = plan(config)
    data = {"out": str(out), "config": config.model_dump(mode="json"), "plan": figures}
    return Outcome(data, [f"# {out}/config.toml", to_toml(config), figures_table(figures)])
