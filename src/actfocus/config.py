"""The whole configuration of a run: one frozen, validated tree.

Defaults are the paper's (arXiv 2605.14558) where it gives them; `recipes/*.toml` tune them for a model. This
file must not import torch: a wrong value has to be refused at once.
"""

import re
import reprlib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import tyro
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from actfocus.errors import ConfigError, did_you_mean

ENV_NAMES = ("frozen-lake", "sokoban", "sudoku", "webshop")


def known_env(name: str) -> str:
    """Refuse a game that is neither ours nor a class of the user's own, as `package.module:Class`."""
    if name not in ENV_NAMES and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError(
            f"input should be one of {', '.join(ENV_NAMES)}, or a class of your own as package.module:Class,"
            f" got {name!r}{did_you_mean(name, ENV_NAMES)}"
        )
    return name


EnvName = Annotated[
    str, AfterValidator(known_env), tyro.conf.arg(metavar=f"{{{','.join(ENV_NAMES)}}}|MODULE:CLASS")
]
SignalName = Literal["energy", "entropy", "nll", "shift"]


class _Section(BaseModel):
    # Strict, so that `steps = "5"` or `steps = true` is a wrong type and not quietly 5 or 1. No infinities:
    # they pass `ge=0` and would only show as a loss that is not finite.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _optional(metavar: str, default: str = "(default: the game's)") -> Any:
    """How the help shows a setting that is None unless given."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default)


_OWNERS = {
    "success_rate": "frozen-lake",
    "coordinates": "sokoban",
    "clues": "sudoku",
    **dict.fromkeys(("catalogue", "goals", "split", "option_match", "reward"), "webshop"),
}
"""Setting → the one game that has it."""


class EnvConfig(_Section):
    """The game. What is left out is the game's own constant."""

    name: Annotated[EnvName, tyro.conf.arg(aliases=["--env"])] = "frozen-lake"
    """Which game, or a class of your own."""
    turns: Annotated[Annotated[int, Field(ge=1)] | None, _optional("INT")] = None
    """Replies in an episode."""
    actions_per_turn: Annotated[Annotated[int, Field(ge=1)] | None, _optional("INT")] = None
    """Actions in one reply; what is beyond them is dropped."""
    actions_per_episode: Annotated[Annotated[int, Field(ge=1)] | None, _optional("INT")] = None
    """Actions in an episode."""
    success_rate: Annotated[Annotated[float, Field(gt=0, le=1)] | None, _optional("FLOAT")] = None
    """FrozenLake: probability that a move goes where it should; 1 means no slips."""
    coordinates: Annotated[bool | None, _optional("{True,False}")] = None
    """Sokoban: also give the positions in numbers."""
    clues: Annotated[Annotated[int, Field(ge=4, le=15)] | None, _optional("INT")] = None
    """Sudoku: digits given at the start."""
    catalogue: Annotated[str | None, _optional("NAME", "(default: shipped)")] = None
    """WebShop: the products; `shipped`, or the name of an imported catalogue (`actfocus webshop list`)."""
    goals: Annotated[Literal["synthetic", "human"] | None, _optional("{synthetic,human}")] = None
    """WebShop: requests made from the products' options, or people's requests, if the catalogue has them."""
    split: Annotated[Literal["product", "goal"] | None, _optional("{product,goal}")] = None
    """WebShop: evaluation has products of its own, or (as published) only goals of its own."""
    option_match: Annotated[Literal["fuzzy", "equal"] | None, _optional("{fuzzy,equal}")] = None
    """WebShop: whether a similar value counts as the wanted one (as published: "large" hits "x-large")."""
    reward: Annotated[Literal["strict", "dense"] | None, _optional("{strict,dense}")] = None
    """WebShop: 1 for a purchase that is right in all points, or the score of any purchase."""

    @model_validator(mode="after")
    def _belongs_to_the_game(self) -> "EnvConfig":
        for key, owner in _OWNERS.items():
            if getattr(self, key) is not None and self.name != owner:
                raise ValueError(f"{key} belongs to {owner}, not to {self.name}: remove it")
        return self

    def settings(self) -> dict[str, Any]:
        """The settings that are given, as keyword arguments of the environment."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


class ModelConfig(_Section):
    """The policy."""

    name: Annotated[str, tyro.conf.arg(aliases=["--model"])] = "tiny"
    """`tiny`, `smollm2-135m`, a Hugging Face id, a folder, or a .gguf file."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of LoRA adapters on all linear layers; 0 trains all weights."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the LoRA update: alpha / rank."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of forward and backward passes; the weights that are trained stay float32."""
    init_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of new parameters (LoRA, a fresh `tiny`)."""


class FocusConfig(_Section):
    """Token weights. (alpha, beta) = (1, 0) is plain PPO or GRPO; (0.1, 0.5) is ActFocus."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of reasoning tokens."""
    beta: Annotated[float, Field(ge=0)] = 0.5
    """How much the signal may add to the weight 1 of an action token."""
    signal: SignalName = "energy"
    """Score that ranks the action tokens of a batch."""
    other_weight: Annotated[Annotated[float, Field(ge=0)] | None, _optional("FLOAT", "")] = None
    """Weight of sampled tokens in neither span (tags, malformed replies); alpha if not given."""

    @property
    def is_uniform(self) -> bool:
        """Whether every sampled token weighs 1, as in plain PPO or GRPO."""
        return self.alpha == 1 and self.beta == 0 and self.other_weight in (None, 1)


class AlgorithmConfig(_Section):
    """How returns become advantages, and what is added to the policy loss."""

    name: Annotated[Literal["grpo", "ppo"], tyro.conf.arg(aliases=["--algorithm"])] = "grpo"
    """Which algorithm."""
    clip_low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Lower clip range of the ratio."""
    clip_high: Annotated[float, Field(ge=0)] = 0.28
    """Upper clip range of the ratio."""
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.001
    """Coefficient of the mean entropy."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient of the KL loss against the reference; 0 means none."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Estimator of the KL loss."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """PPO: discount per token."""
    lam: Annotated[float, Field(ge=0, le=1)] = 1.0
    """PPO: λ of GAE."""
    whiten: bool = True
    """PPO: standardise the advantages over the batch, before weighting."""
    value_clip: Annotated[float, Field(gt=0)] = 0.5
    """PPO: how far a value may move from the old one in one batch."""
    critic_lr: Annotated[float, Field(gt=0)] = 1e-5
    """PPO: learning rate of the critic."""


class RolloutConfig(_Section):
    """What is sampled in one step."""

    prompts: Annotated[int, Field(ge=1)] = 8
    """Start states (groups) per step."""
    group: Annotated[int, Field(ge=1)] = 16
    """Trajectories per start state."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the groups that is trained on: those with the largest standard deviation of the return."""
    context: Annotated[int, Field(ge=16)] = 3600
    """Tokens in a whole episode, at most."""
    response: Annotated[int, Field(ge=1)] = 400
    """Tokens in one reply, at most."""


_Decay = Annotated[float, Field(ge=0, lt=1, strict=True)]


class OptimizerConfig(_Section):
    """Adam on the policy."""

    lr: Annotated[float, Field(gt=0)] = 1e-6
    """Learning rate of the policy."""
    betas: Annotated[tuple[_Decay, _Decay], Field(strict=False)] = (0.9, 0.999)
    """Decay of Adam's two averages."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warm-up, down to 0 after the last step unless constant."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over each batch."""
    mini_batch: Annotated[int, Field(ge=1)] = 32
    """Trajectories per update."""
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Trajectories per forward pass: a matter of memory, never of the result."""


class EvaluationConfig(_Section):
    """Success on fixed start states, whose level seeds training never draws."""

    every: Annotated[int, Field(ge=1)] = 10
    """Steps between evaluations; one more stands before training and one at its end."""
    states: Annotated[int, Field(ge=1)] = 32
    """Fixed start states."""
    samples: Annotated[int, Field(ge=1)] = 16
    """Episodes per start state."""
    temperature: Annotated[float, Field(ge=0)] = 0.5
    """Sampling temperature; 0 takes the likeliest token."""


class Config(_Section):
    """A training run."""

    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    focus: FocusConfig = FocusConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    steps: Annotated[int, Field(ge=0)] = 200
    """Training steps: one rollout and the updates on it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random in the run."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    """Steps between checkpoints; one more stands at the end."""
    save_episodes_every: Annotated[int, Field(ge=0)] = 10
    """Steps between records of all episodes, token by token; 0 means none."""
    gradients_every: Annotated[int, Field(ge=0)] = 0
    """Steps between measurements of how the policy gradient divides among the roles, besides that of the
    first step; 0 means none. One takes the memory of nine gradients and the time of four updates."""

    @property
    def kept_groups(self) -> int:
        """Groups that one step trains on: the share that `rollout.keep` names, at least one."""
        return max(1, round(self.rollout.keep * self.rollout.prompts))

    @model_validator(mode="after")
    def _groups_are_groups(self) -> "Config":
        if self.algorithm.name == "grpo" and self.rollout.group < 2:
            raise ValueError("rollout.group must be at least 2 with GRPO, which compares within a group")
        return self

    def due(self, every: int) -> set[int]:
        """The steps of what is done every so many steps and with the last one; none if `every` is 0."""
        return {*range(every, self.steps + 1, every), self.steps} - {0} if every else set()

    @property
    def needs_reference(self) -> bool:
        """Whether any part of the loss reads the frozen reference."""
        weighted = self.focus.beta > 0 and self.focus.signal != "nll"
        return weighted or self.algorithm.kl_coefficient > 0


class WarmstartConfig(_Section):
    """Supervised training on demonstrations of the scripted expert."""

    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    episodes: Annotated[int, Field(ge=1)] = 2000
    """Demonstrated episodes, each seen once."""
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the turns that play random actions instead of the expert's."""
    remarks: Annotated[int, Field(ge=1)] = 8
    """Sentences of reasoning per turn, on average."""
    plain_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the episodes, the first ones, that stop after one turn and whose reasoning keeps one order and
    wording: a model that starts from nothing learns to read the state there, before it learns to vary."""
    midway: bool = False
    """Whether that one turn may be any of an episode, those before it unseen: for games whose first turn
    shows little of what comes later."""
    context_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight in the loss of what the environment says; above 0 for a model that starts from nothing."""
    action_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of action tokens in the loss: they are few, in imitation as in reinforcement."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Episodes per update."""
    micro_batch: Annotated[int, Field(ge=1)] = 16
    """Episodes per forward pass: a matter of memory, never of the result."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate: a short linear warm-up, then a cosine down to 0."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the demonstrations and of their order."""
    evaluation_states: Annotated[int, Field(ge=0, le=1_000_000)] = 32
    """Fixed start states that the model plays at the end, four episodes each; 0 leaves the evaluation out."""


def load_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, not validated yet."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def load_config(path: Path) -> Config:
    """The validated configuration in a TOML file; what the file leaves out has its default."""
    try:
        return Config.model_validate(load_toml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Config)}") from None


def to_toml(config: BaseModel) -> str:
    """The resolved configuration as TOML; settings that are None are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def differences(old: Config, new: Config) -> list[str]:
    """The dotted keys in which two configurations differ."""
    before, after = _flatten(old.model_dump()), _flatten(new.model_dump())
    return [key for key in before if before[key] != after[key]]


def dotted_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys of a section, with the names of the sections in it: `focus`, `focus.alpha`, …."""
    keys = []
    for name, field in kind.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += dotted_keys(field.annotation, f"{prefix}{name}.")
    return keys


def nearest_key(key: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the key that was meant, or nothing.

    A key whose last part is the same comes first: who writes `alpha` or `env.alpha` means `focus.alpha`.
    """
    known = list(known)
    last = key.rpartition(".")[2]
    for candidate in known:
        if candidate.rpartition(".")[2] == last:
            return f"; did you mean {candidate!r}?"
    return did_you_mean(key, known)


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """What pydantic found, on one line that names the dotted keys; `kind` is the root of the tree."""
    # A section that was validated alone reports keys without its own name; its title tells which one it was.
    sections = {getattr(field.annotation, "__name__", ""): name for name, field in kind.model_fields.items()}
    prefix = sections.get(error.title)
    found = []
    for detail in error.errors(include_url=False):
        loc = ((prefix,) if prefix else ()) + detail["loc"]
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        found.append(f"{key}: {_problem(detail, key, kind)}" if key else _problem(detail, key, kind))
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _problem(detail: Any, key: str, kind: type[BaseModel]) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown key" + nearest_key(key, dotted_keys(kind))
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "model_type":
        return f"input should be a table of settings, got {reprlib.repr(detail['input'])}"
    message = str(detail["msg"])
    got = "" if detail["type"] == "missing" else f", got {reprlib.repr(detail['input'])}"
    return f"{message[0].lower()}{message[1:]}{got}"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
