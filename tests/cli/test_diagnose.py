"""`actfocus diagnose`, promises: its options reach the request; wrong ones are refused on one line, with code
2, before torch is loaded; the result is shown with its verdict, or printed as one JSON object.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actfocus.config import Config, EnvConfig, FocusConfig
from actfocus.diagnosis.request import Request
from tests.cli.conftest import make_run
from tests.cli.test_commands import Call, Recorder, StandIn

ROW = {"rho": 0.5, "p": 0.01, "low": 0.2, "high": 0.7, "groups": 64, "resamples": 5000}
GONE = {"rho": None, "p": None, "low": None, "high": None, "groups": 64, "resamples": 0}
PART = {"tokens": 10, "total": 0.5, "per_token": 0.1, "share": 0.5, "deviation": 1.0, "signal_to_noise": 0.3}
PARTS = dict.fromkeys(("reasoning", "action", "other"), PART) | {"all": PART | {"share": None}}
RESULT: dict[str, Any] = {
    "groups": 64,
    "groups_without_variance": 9,
    "episodes": 512,
    "action_share": 0.06,
    "tested": {"signal": "energy", "scope": "action"},
    "bootstrap": {"resamples": 5000},
    "correlations": {"energy": {"all": GONE, "reasoning": GONE, "action": ROW}},
    "signal_check": {
        "constant": 1.0,
        "energy_moved": 1.0,
        "energy_moved_in_sd": 0.5,
        "entropy_moved": 1e-7,
        "energy_entropy_rho": 0.8,
    },
    "gradient": {
        "groups": 55,
        "noise_floor": 0.13,
        "focus": {"alpha": 0.1, "beta": 0.5, "signal": "energy", "other_weight": None},
        "before": PARTS,
        "after": PARTS,
    },
    "notes": ["a note"],
    "verdict": {"finding": "evidence", "text": "Evidence of something."},
    "pictures": ["bottleneck.png", "bottleneck.svg"],
}


@pytest.fixture
def diagnose(stand_in: StandIn) -> Recorder:
    diagnose = Recorder(RESULT)
    stand_in("actfocus.diagnosis.diagnose", diagnose=diagnose)
    return diagnose


def test_defaults(actfocus: Call, diagnose: Recorder) -> None:
    result = actfocus("diagnose")
    assert result.code == 0, result.err
    request, out = diagnose.args
    assert request == Request(focus=FocusConfig())
    assert (request.groups, request.group) == (64, 8)
    assert str(out).startswith("runs/diagnosis-frozen-lake-")
    for words in (
        "+0.20 to +0.70",
        "the test",
        "explored",
        "the other correlations are exploratory",
        "Evidence of something.",
        "Note: a note",
    ):
        assert words in result.out
    assert f"Picture: {out}/bottleneck.png" in result.out


def test_every_option_of_a_model(actfocus: Call, diagnose: Recorder) -> None:
    words = (
        "--model tiny --reference tiny --env sudoku --env.clues 6 --groups 5 --group 3 --seed 7 --context 99"
    )
    words += (
        " --response 12 --alpha 0.2 --beta 1 --other-weight 0.3 --gradient-groups 4 --micro-batch 2 --out o"
    )
    assert actfocus("diagnose", *words.split(), "--precision", "bfloat16").code == 0
    request, out = diagnose.args
    assert request == Request(
        model="tiny",
        reference="tiny",
        precision="bfloat16",
        env=EnvConfig(name="sudoku", clues=6),
        focus=FocusConfig(alpha=0.2, beta=1.0, other_weight=0.3),
        groups=5,
        group=3,
        seed=7,
        context=99,
        response=12,
        gradient_groups=4,
        micro_batch=2,
    )
    assert out == Path("o")


def test_a_run_brings_its_settings(actfocus: Call, diagnose: Recorder, tmp_path: Path) -> None:
    focus = FocusConfig(alpha=1.0, beta=0.0, signal="nll")
    run = make_run(tmp_path / "r", Config(focus=focus), steps=(5,))
    (run / "episodes").mkdir()
    (run / "episodes" / "step_3.jsonl.gz").write_bytes(b"")
    assert actfocus("diagnose", "r", "--step", "5").code == 0
    assert diagnose.args[0] == Request(run=Path("r"), step=5, focus=focus)
    assert actfocus("diagnose", "r", "--recorded", "--step", "3", "--alpha", "0.1").code == 0
    expected = FocusConfig(alpha=0.1, beta=0.0, signal="nll")
    assert diagnose.args[0] == Request(run=Path("r"), step=3, recorded=True, focus=expected)


def test_a_file_with_a_wild_name(actfocus: Call, diagnose: Recorder, tmp_path: Path) -> None:
    """Its name is made part of a folder's and shown: neither too long, nor a command to the terminal."""
    name = "\x1b[31m" + "名" * 70 + ".jsonl"
    (tmp_path / name).write_text(json.dumps(GOOD) + "\n")
    result = actfocus("diagnose", "--transcripts", name, "--model", "tiny")
    assert result.code == 0, result.err
    assert "\x1b" not in result.out and "Picture: runs/diagnosis-\\x1b[31m名" in result.out
    assert len(diagnose.args[1].name.encode()) < 256


def test_json_is_alone_on_stdout(actfocus: Call, diagnose: Recorder) -> None:
    result = actfocus("diagnose", "--json", "--out", "o")
    found = json.loads(result.out, parse_constant=pytest.fail)
    assert found == RESULT | {"out": "o"}
    assert "a library speaks" in result.err


GOOD = {
    "group": 1,
    "return": 1,
    "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
}
CASES = [
    ("diagnose --groups 0", ["groups", "greater than or equal to 1, got 0"]),
    ("diagnose --group 1", ["group:", "greater than or equal to 2, got 1"]),
    ("diagnose --seed -1", ["seed", "got -1"]),
    ("diagnose --micro-batch 0", ["micro-batch", "got 0"]),
    ("diagnose --gradient-groups -1", ["--gradient-groups", "got -1"]),
    ("diagnose --gradient-groups 1", ["--gradient-groups: one group has no spread"]),
    ("diagnose --alpha 2", ["alpha", "less than or equal to 1, got 2.0"]),
    ("diagnose --grops 3", ["did you mean '--groups'"]),
    ("diagnose --precision half", ["--precision", "got 'half'"]),
    ("diagnose --env chess", ["env.name", "got 'chess'"]),
    ("diagnose --env sudoku --env.turns 2", ["sudoku", "turns"]),
    ("diagnose --model no-such-model", ["no-such-model"]),
    ("diagnose --reference no-such-model", ["no-such-model"]),
    ("diagnose --recorded", ["--recorded goes with a run directory"]),
    ("diagnose --step 0", ["--step goes with a run directory"]),
    ("diagnose --step 3", ["--step goes with a run directory"]),
    ("diagnose missing", ["no run directory missing"]),
    ("diagnose empty", ["empty has no checkpoint yet"]),
    ("diagnose run --step 7", ["no checkpoint of step 7"]),
    ("diagnose run --recorded", ["run has no recorded episodes"]),
    ("diagnose run --model tiny", ["--model does not go with a run directory"]),
    ("diagnose run --env sudoku", ["--env does not go with a run directory"]),
    ("diagnose run --transcripts good.jsonl", ["--transcripts does not go with a run directory"]),
    ("diagnose --transcripts good.jsonl", ["--transcripts needs --model"]),
    ("diagnose --transcripts nowhere.jsonl --model tiny", ["nowhere.jsonl", "No such file"]),
    ("diagnose --transcripts bad.jsonl --model tiny", ["bad.jsonl, line 2: ", "return is missing"]),
    (
        "diagnose --transcripts good.jsonl --model tiny --env.turns 3",
        ["--env does not go with --transcripts"],
    ),
    ("diagnose --transcripts good.jsonl --model x --env sudoku", ["--env does not go with --transcripts"]),
    ("diagnose --transcripts good.jsonl --model tiny --groups 5", ["--groups does not go with --tra"]),
    ("diagnose --transcripts good.jsonl --model tiny --seed 1", ["--seed does not go with --transcripts"]),
    ("diagnose run --recorded --context 99", ["--context does not go with --recorded", "nothing is sampled"]),
    ("diagnose --out run", ["run exists already", "another --out"]),
    ("diagnose --out good.jsonl/deep", ["good.jsonl is not a folder"]),
]

_ALL_IN_ONE = """
import contextlib, io, json, sys
from actfocus.cli import main

results = []
for args in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(args)
    results.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps({"results": results, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("wrong")
    make_run(folder / "run", steps=(5, 10))
    make_run(folder / "empty")
    (folder / "good.jsonl").write_text(json.dumps(GOOD) + "\n")
    (folder / "bad.jsonl").write_text(json.dumps(GOOD) + '\n{"group": 1, "messages": []}\n')
    done = subprocess.run(
        [sys.executable, "-c", _ALL_IN_ONE],
        input=json.dumps([case.split(" ") for case, _ in CASES]),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "runs").exists()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case for case, _ in CASES])
def test_is_refused_in_one_line(report: dict[str, Any], number: int) -> None:
    result, (_, said) = report["results"][number], CASES[number]
    assert (result["code"], result["out"]) == (2, "")
    assert result["err"].startswith("actfocus: ")
    assert result["err"].count("\n") == 1 and result["err"].endswith("\n")
    for words in said:
        assert words in result["err"]


def test_imports_no_torch(report: dict[str, Any]) -> None:
    assert not report["torch"]
