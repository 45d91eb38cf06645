"""A run of 200 steps holds, at its end, as much memory, files, threads and processes as after 50."""

import statistics

import psutil
import pytest
from outcomes import rows
from resuming import Listener, Runs
from test_trainer import easy_reward

from fastgrpo.config import load_config
from fastgrpo.launch import launch

__all__ = ["easy_reward"]
TOY = ("steps=200", "prompts_per_step=2", "samples_per_prompt=2", "updates_per_rollout=1", "max_new_tokens=4", "checkpoint.every=10")
TOY += ("eval.every=20", "sampling.refill=0", "health.steps_without_signal=500", "run_dir=run")


class Sampler(Listener):
    """Looks at this process after each row."""

    def __init__(self):
        super().__init__()
        self.samples: list[dict[str, int]] = []

    def row(self, row):
        process = psutil.Process()
        children = process.children(recursive=True)
        mib = sum(each.memory_info().rss for each in (process, *children)) // 2**20
        counts = {"files": process.num_fds(), "threads": process.num_threads(), "processes": len(children)}
        self.samples.append({"mib": mib, **counts})


@pytest.mark.slow  # 10 s
@pytest.mark.parametrize("workers", [pytest.param(False, marks=pytest.mark.long), True], ids=["alone", "with reward processes"])
def test_nothing_grows(tmp_path, tiny_model_dir, easy_reward, workers):
    (tmp_path / "rewards.py").write_text("def even(completions):\n    return [len(text) % 2 for text in completions]\n")
    runs, sampler = Runs(tmp_path, tiny_model_dir), Sampler()
    settings = [*runs.settings, *TOY, *["reward.function=rewards.py:even"] * workers]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        launch(load_config("tiny", settings), sampler)
    assert len(rows(tmp_path / "run")) == len(sampler.samples) > 200
    early, late = sampler.samples[50:80], sampler.samples[-30:]
    assert (early[0]["processes"] > 0) == workers
    for name, more in (("files", 0), ("threads", 0), ("processes", 0), ("mib", 8)):
        before, after = (statistics.median(sample[name] for sample in part) for part in (early, late))
        assert after <= before + more, (name, before, after)
