"""The configuration, promises: frozen; a docstring for every field; what is written to TOML is read back
equal; unknown keys, wrong types and bad ranges are refused by name; every recipe is valid."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from actfocus.config import (
    ENV_NAMES,
    Config,
    EnvConfig,
    WarmstartConfig,
    differences,
    dotted_keys,
    explain,
    load_config,
    nearest_key,
    to_toml,
)
from actfocus.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


def sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield kind
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


ALL_SECTIONS = [*sections(Config), *sections(WarmstartConfig)]


@pytest.mark.parametrize("kind", ALL_SECTIONS)
def test_every_section_and_field_has_a_docstring(kind: type[BaseModel]) -> None:
    assert (kind.__doc__ or "").strip()
    for name, field in kind.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert nested or (field.description or "").strip().endswith("."), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", ALL_SECTIONS)
def test_every_section_is_frozen(kind: type[BaseModel]) -> None:
    section = kind()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section, next(iter(kind.model_fields)), None)


def test_what_may_be_none_is_none_by_default() -> None:
    """TOML has no null: a None that differs from the default could not be written down."""
    for kind in ALL_SECTIONS:
        for field in kind.model_fields.values():
            if type(None) in get_args(field.annotation):
                assert field.default is None


def test_defaults_are_the_papers() -> None:
    config = Config()
    assert (config.focus.alpha, config.focus.beta, config.focus.signal) == (0.1, 0.5, "energy")
    assert (config.rollout.prompts, config.rollout.group, config.rollout.keep) == (8, 16, 0.25)
    assert (config.rollout.context, config.rollout.response) == (3600, 400)
    assert (config.algorithm.clip_low, config.algorithm.clip_high) == (0.2, 0.28)
    assert (config.optimizer.lr, config.algorithm.critic_lr) == (1e-6, 1e-5)
    assert (config.evaluation.states, config.evaluation.samples, config.evaluation.temperature) == (
        32,
        16,
        0.5,
    )
    assert config.steps == 200


def test_derived_figures() -> None:
    assert Config().kept_groups == 2
    assert Config.model_validate({"rollout": {"prompts": 1, "keep": 0.1}}).kept_groups == 1
    assert Config.model_validate({"steps": 10}).due(4) == {4, 8, 10}
    assert Config.model_validate({"steps": 8}).due(4) == {4, 8}
    assert Config.model_validate({"steps": 3}).due(4) == {3}
    assert Config.model_validate({"steps": 3}).due(0) == set()
    assert Config.model_validate({"steps": 0}).due(4) == set()
    assert Config().needs_reference
    uniform = {"focus": {"alpha": 1.0, "beta": 0.0}}
    assert not Config.model_validate(uniform).needs_reference
    assert not Config.model_validate({"focus": {"signal": "nll"}}).needs_reference
    assert Config.model_validate(uniform | {"algorithm": {"kl_coefficient": 0.1}}).needs_reference


@pytest.mark.parametrize("kind", [Config, WarmstartConfig])
def test_defaults_survive_toml(kind: type[BaseModel]) -> None:
    assert kind.model_validate(tomllib.loads(to_toml(kind()))) == kind()


def test_differences_name_the_dotted_keys() -> None:
    assert differences(Config(), Config()) == []
    changes = {"seed": 1, "focus": {"other_weight": 0.5}, "env": {"name": "sudoku", "clues": 6}}
    assert differences(Config(), Config.model_validate(changes)) == [
        "env.name",
        "env.clues",
        "focus.other_weight",
        "seed",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stesp = 1", "stesp: unknown key; did you mean 'steps'?"),
        ("focus.alpah = 1", "focus.alpah: unknown key; did you mean 'focus.alpha'?"),
        ("alpha = 1", "alpha: unknown key; did you mean 'focus.alpha'?"),
        ("env.alpha = 1", "env.alpha: unknown key; did you mean 'focus.alpha'?"),
        ("optimiser.lr = 1", "optimiser: unknown key; did you mean 'optimizer'?"),
        ("zzzz = 1", "zzzz: unknown key"),
        ("focus.alpha = 1.5", "focus.alpha: input should be less than or equal to 1, got 1.5"),
        ("focus.alpha = nan", "focus.alpha: input should be a finite number, got nan"),
        ("focus.beta = inf", "focus.beta: input should be a finite number, got inf"),
        ("focus.alpha = true", "focus.alpha: input should be a valid number, got True"),
        ("focus.alpha = '0.1'", "focus.alpha: input should be a valid number, got '0.1'"),
        ("steps = 5.0", "steps: input should be a valid integer, got 5.0"),
        ("steps = true", "steps: input should be a valid integer, got True"),
        ("seed = 2147483648", "seed: input should be less than 2147483648, got 2147483648"),
        ("algorithm.whiten = 1", "algorithm.whiten: input should be a valid boolean, got 1"),
        ("algorithm.name = 'dpo'", "algorithm.name: input should be 'grpo' or 'ppo', got 'dpo'"),
        ("optimizer.betas = [0.9]", "optimizer.betas[1]: field required"),
        ("optimizer.betas = [0.9, 1]", "optimizer.betas[1]: input should be less than 1, got 1"),
        ("focus = 3", "focus: input should be a table of settings, got 3"),
        ("env.clues = 6", "env: clues belongs to sudoku, not to frozen-lake: remove it"),
        (
            "env.name = 'sudoku'\nenv.coordinates = true",
            "env: coordinates belongs to sokoban, not to sudoku: remove it",
        ),
        ("model.name = 5", "model.name: input should be a valid string, got 5"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert str(refused.value) == f"{path}: {said}"


def test_grpo_needs_groups() -> None:
    with pytest.raises(ValidationError, match=r"rollout\.group must be at least 2 with GRPO"):
        Config.model_validate({"rollout": {"group": 1}})
    ppo = Config.model_validate({"rollout": {"group": 1}, "algorithm": {"name": "ppo"}})
    assert ppo.rollout.group == 1


def test_several_errors_stand_on_one_line() -> None:
    wrong = {"seed": -1, "steps": -1, "a": 1, "b": 2}
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(wrong)
    message = explain(refused.value, Config)
    assert "\n" not in message and "seed:" in message and "steps:" in message
    assert message.endswith("(and 1 more)")


def test_a_section_validated_alone_is_named() -> None:
    with pytest.raises(ValidationError) as refused:
        EnvConfig(turns=0)
    assert explain(refused.value, Config).startswith("env.turns: ")
    assert explain(refused.value, EnvConfig).startswith("turns: ")


def test_a_very_long_value_is_cut() -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate({"steps": "x" * 10_000})
    assert len(explain(refused.value, Config)) < 120


@pytest.mark.parametrize("content", [b"steps = [", b"\xff\xfe", b"steps = 1\nsteps = 2"])
def test_broken_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.toml is not valid TOML"):
        load_config(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the config .*c\.toml: No such file"):
        load_config(tmp_path / "c.toml")


def test_nearest_key() -> None:
    keys = dotted_keys(Config)
    assert {"focus", "focus.alpha", "steps"} <= set(keys)
    assert nearest_key("rollout.alpha", keys) == "; did you mean 'focus.alpha'?"
    assert nearest_key("qqqqqq", keys) == ""


def test_there_is_a_recipe_for_each_environment_and_algorithm() -> None:
    algorithms = ("grpo", "ppo")
    assert {path.stem for path in RECIPES} >= {f"{game}-{name}" for game in ENV_NAMES for name in algorithms}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_what_its_name_says(path: Path) -> None:
    config = load_config(path)
    model = "" if config.model.name == "tiny" else "-qwen"
    assert path.stem == f"{config.env.name}{model}-{config.algorithm.name}"
    assert config.focus.alpha < 1
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and f"actfocus train --config recipes/{path.name}" in first


def test_imports_no_torch() -> None:
    """A fresh process, because this one may have imported it for another test."""
    code = "import sys, actfocus.config, actfocus.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


BOUNDS = {"ge": "min_value", "gt": "min_value", "le": "max_value", "lt": "max_value"}


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Valid values of a field, from its annotation and bounds."""
    origin, args = get_origin(annotation), get_args(annotation)
    if any(isinstance(each, AfterValidator) for each in metadata):
        return st.sampled_from([*ENV_NAMES, "games.mine:Game"])
    if origin is Annotated:
        inner = args[1].metadata if isinstance(args[1], FieldInfo) else []
        return values(args[0], [*metadata, *inner])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.tuples(*(values(arg, metadata) for arg in args))
    if type(None) in args:
        assert origin is Union or args
        return st.none() | values(args[0], metadata)
    if annotation is str:
        return st.text(min_size=1)
    if annotation is bool:
        return st.booleans()
    bounds: dict[str, Any] = {}
    for bound in metadata:
        for name, option in BOUNDS.items():
            if (limit := getattr(bound, name, None)) is not None:
                bounds[option] = limit
                if name in ("gt", "lt") and annotation is float:
                    bounds["exclude_min" if name == "gt" else "exclude_max"] = True
                elif name in ("gt", "lt"):
                    bounds[option] = limit + (1 if name == "gt" else -1)
    if annotation is int:
        return st.integers(**({"max_value": 2**62} | bounds))
    assert annotation is float
    return st.floats(allow_nan=False, allow_infinity=False, **bounds)


@st.composite
def overrides(draw: st.DrawFn) -> dict[str, Any]:
    """Some settings of some sections; of a game's own settings only those of the game that is chosen."""
    chosen: dict[str, Any] = {}
    for key in draw(st.sets(st.sampled_from([key for key in dotted_keys(Config)]))):
        section, _, name = key.rpartition(".")
        kind = Config.model_fields[section].annotation if section else Config
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        field = kind.model_fields[name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        target = chosen.setdefault(section, {}) if section else chosen
        target[name] = draw(values(field.annotation, field.metadata))
    env = chosen.get("env", {})
    owners = {"success_rate": "frozen-lake", "coordinates": "sokoban", "clues": "sudoku"}
    owners |= dict.fromkeys(("catalogue", "goals", "split", "option_match", "reward"), "webshop")
    for name, owner in owners.items():
        if env.get("name", "frozen-lake") != owner:
            env.pop(name, None)
    if chosen.get("rollout", {}).get("group") == 1:  # GRPO, which is the default, compares within a group
        chosen["rollout"]["group"] = 2
    return chosen


@given(overrides())
def test_valid_overrides_survive_toml(changes: dict[str, Any]) -> None:
    config = Config.model_validate(changes)
    again = Config.model_validate(tomllib.loads(to_toml(config)))
    assert again == config
    assert differences(config, again) == []
