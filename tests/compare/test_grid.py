"""Grid, promises: every cell has the recipe's settings but for what the grid varies; all arms of a seed come
before the next seed; what does not fit is refused by option or key."""

import json
from pathlib import Path

import pytest

from actfocus.compare.arms import choose_arms
from actfocus.compare.directory import CompareDirectory, Grid
from actfocus.compare.grid import make_cells
from actfocus.config import differences, load_config
from actfocus.errors import ConfigError, RunError

RECIPES = Path(__file__).parents[2] / "recipes"
ARMS = choose_arms(["uniform", "actfocus"], [], [])


def cells(**options):
    given = {
        "envs": [],
        "algorithms": [],
        "arms": ARMS,
        "seeds": [0, 1],
        "lrs": [],
        "config": None,
        "changes": [],
    }
    return make_cells(**given | options)


def test_recipes_give_the_settings():
    made = cells(envs=["frozen-lake", "sokoban"], algorithms=["grpo", "ppo"])
    assert len(made) == 16
    assert [cell.name for cell in made[:3]] == [
        "frozen-lake-grpo-uniform-0", "frozen-lake-grpo-actfocus-0", "frozen-lake-ppo-uniform-0",
    ]  # fmt: skip
    assert [cell.config.seed for cell in made] == [0] * 8 + [1] * 8
    for cell in made:
        recipe = load_config(RECIPES / f"{cell.config.env.name}-{cell.config.algorithm.name}.toml")
        assert set(differences(recipe, cell.config)) <= {"seed", "focus.alpha", "focus.beta"}


def test_overrides_and_learning_rates_reach_every_arm():
    made = cells(
        algorithms=["ppo"], lrs=[1e-4, 1e-3],
        changes=["steps=3", "env.turns=2", "optimizer.schedule=cosine", "algorithm.whiten=false",
                 "model.name=a b"],
    )  # fmt: skip
    assert {(cell.arm, cell.config.optimizer.lr) for cell in made} == {
        (arm, lr) for arm in ("uniform", "actfocus") for lr in (1e-4, 1e-3)
    }
    assert made[0].name == "frozen-lake-ppo-lr0.0001-uniform-0"
    config = made[0].config
    assert (config.steps, config.env.turns, config.optimizer.schedule) == (3, 2, "cosine")
    assert config.algorithm.whiten is False and config.model.name == "a b"
    assert config.env.success_rate == 1.0  # the recipe's, kept


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        "seed = 9\nsteps = 4\n[env]\nname = 'sudoku'\n[focus]\nalpha = 0.7\n[algorithm]\nname = 'ppo'\n"
    )
    made = cells(config=path, seeds=[3])
    assert [cell.name for cell in made] == ["sudoku-ppo-uniform-3", "sudoku-ppo-actfocus-3"]
    assert [cell.config.focus.alpha for cell in made] == [1.0, 0.1]
    assert {cell.config.algorithm.name for cell in cells(config=path, algorithms=["grpo"])} == {"grpo"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"envs": ["chess"]}, "--env: input should be one of"),
        ({"envs": ["own:Game"]}, "no recipe recipes/own:Game-grpo.toml: give the settings with --config"),
        ({"seeds": [1, 1]}, "--seeds: 1 is given twice"),
        ({"seeds": [-1]}, "seed: input should be greater than or equal to 0"),
        ({"lrs": [0.0]}, "optimizer.lr: input should be greater than 0"),
        ({"lrs": [1e-4, 1e-4]}, "--lr: 0.0001 is given twice"),
        ({"lrs": [1e-4], "changes": ["optimizer.lr=1"]}, "--set optimizer.lr does not go with --lr"),
        ({"changes": ["stesp=1"]}, "--set stesp: unknown key; did you mean 'steps'"),
        ({"changes": ["steps"]}, "write key=value"),
        ({"changes": ["steps=many"]}, "with --set: steps: input should be a valid integer, got 'many'"),
        ({"changes": ["steps=true"]}, "steps"),
        ({"changes": ["seed=1"]}, "use --seeds"),
        ({"changes": ["focus.alpha=1"]}, "use --arm"),
        ({"changes": ["algorithm=1"]}, "--set algorithm: that is a section"),
        ({"changes": ["env=frozen-lake"]}, "--set env: that is a section"),
        ({"changes": ["env.name=sudoku"]}, "use --env"),
        ({"changes": ["env.clues=5"]}, "clues belongs to sudoku"),
        ({"config": Path("missing.toml")}, "missing.toml"),
    ],
)  # fmt: skip
def test_wrong_grids(options, said):
    with pytest.raises(ConfigError) as error:
        cells(**options)
    assert said in str(error.value)


def test_learning_rates_that_look_alike_have_two_names():
    names = [cell.name for cell in cells(algorithms=["grpo"], lrs=[1e-4, 1.0000001e-4])]
    assert len(set(names)) == len(names)


def test_a_grid_of_another_version_is_refused(tmp_path):
    directory = CompareDirectory(tmp_path)
    grid = cells(algorithms=["grpo"])
    directory.save(Grid(grid, [], False, None))
    assert directory.load().cells == grid
    text = directory.grid.read_text()
    assert '"schema": 1' in text
    directory.grid.write_text(text.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(RunError, match="it has schema 2, and this version reads 1"):
        directory.load()


def test_a_directory_is_extended_and_refuses_other_settings(tmp_path):
    directory = CompareDirectory(tmp_path / "d")
    old = cells(algorithms=["grpo"])
    directory.save(Grid(old, ["a command"], False, 2))
    assert directory.load() == Grid(old, ["a command"], False, 2)

    more, chosen = directory.merge(cells(algorithms=["grpo", "ppo"], seeds=[1, 2]), swept=False)
    assert len(more) == 10 and len(chosen) == 8
    with pytest.raises(ConfigError, match=r"other settings for frozen-lake, grpo: optimizer.lr, steps"):
        directory.merge(cells(algorithms=["grpo"], changes=["steps=3", "optimizer.lr=1e-5"]), swept=False)
    # A sweep may add learning rates; the cell that is there already keeps its name.
    more, chosen = directory.merge(cells(algorithms=["grpo"], lrs=[3e-4, 1e-3]), swept=True)
    assert len(more) == 8
    assert {cell.name for cell in chosen} > {
        "frozen-lake-grpo-uniform-0",
        "frozen-lake-grpo-lr0.001-uniform-0",
    }
    other = choose_arms(["mine=alpha:0.3"], [], [])
    directory.save(Grid([*old, *cells(algorithms=["grpo"], arms=other)], [], False, None))
    with pytest.raises(ConfigError, match=r"arm 'mine' with other weights: focus.alpha"):
        directory.merge(cells(arms=choose_arms(["mine=alpha:0.4"], [], []), algorithms=["grpo"]), swept=False)
    with pytest.raises(ConfigError, match=r"arm 'mine' with other weights: focus.alpha"):  # anywhere
        directory.merge(cells(arms=choose_arms(["mine=alpha:0.4"], [], []), envs=["sudoku"]), swept=False)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(RunError, match="is no comparison"):
        CompareDirectory(tmp_path).merge(cells(), swept=False)
    (tmp_path / "grid.json").write_text("{}")
    with pytest.raises(RunError, match=r"grid.json is damaged.*actfocus compare --read .*runs --out REPORT"):
        CompareDirectory(tmp_path).load()


def test_what_a_kill_leaves_before_the_grid_can_be_gone_on_with(tmp_path):
    for name in ("configs", "logs", "runs"):
        (tmp_path / name).mkdir()
    for name in (".lock", ".grid.json.partial", "configs/frozen-lake-grpo-uniform-0.toml"):
        (tmp_path / name).write_text("")
    directory = CompareDirectory(tmp_path)
    made, _ = directory.merge(cells(algorithms=["grpo"]), swept=False)
    directory.save(Grid(made, [], False, None))
    assert load_config(directory.config_path(made[0])) == made[0].config  # what was damaged is whole again


@pytest.mark.parametrize("key", ["name", "arm"])
def test_names_in_a_grid_do_not_lead_out_of_the_folder(tmp_path, key):
    directory = CompareDirectory(tmp_path / "d")
    directory.save(Grid(cells(algorithms=["grpo"]), [], False, None))
    grid = json.loads(directory.grid.read_text())
    grid["cells"][0][key] = "../../x"
    directory.grid.write_text(json.dumps(grid))
    with pytest.raises(RunError, match=r"grid.json is damaged: '../../x' is no name"):
        directory.load()
