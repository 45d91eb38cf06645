"""The exactness test over ranks: gradients are summed by gloo between processes that hold different packs."""

import json
from pathlib import Path

import pytest
from exactness import PLANTED
from forked_ranks import run_ranks

TESTS = Path(__file__).parent


@pytest.mark.slow  # 15 s with 2 ranks, 25 s with 4, on two cores
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_update_of_one_process_and_planted_bugs_are_seen(tiny_model_dir, tmp_path, ranks):
    done = run_ranks(ranks, TESTS / "ranks_program.py", tiny_model_dir, tmp_path / "errors.json")
    assert done.returncode == 0, done.stderr[-3000:]
    errors = json.loads((tmp_path / "errors.json").read_text())
    for plan in ("spread", "one rank idle", *({"adapters"} & errors.keys())):
        assert max(errors[plan].values()) <= 1e-12, plan
    assert errors["adamw"] <= 1e-9
    for name in PLANTED:
        assert all(error > 1e-3 for error in errors[name].values()), name
