"""What each of two ranks runs: DeepSpeed's learner under the real vLLM engine, on shared memory and by pushes; asserts on every rank.

engine_program.py ZERO WEIGHTS, under torchrun. A prefix cache, other responses and three updates in between: stale weights would show.
"""

import sys

from deepspeed_runs import ranks, settings
from rollout.colocation import PROMPTS, pairs, sample, sequences, tiny_engine, tiny_model

from fastgrpo.config import LossConfig
from fastgrpo.learner.deepspeed import DeepSpeedLearner
from fastgrpo.packing import pack
from fastgrpo.rollout.parity import parity


def rounds(zero: int, weights: str, rank: int) -> None:
    model = tiny_model("qwen untied")
    engine = tiny_engine(model, weights) if weights == "push" else None  # before the weights are sharded
    learner = DeepSpeedLearner(model, LossConfig(type="dr_grpo"), 1.0, lambda update: 3e-3, 1.0, settings(zero))
    engine = engine or tiny_engine(model, weights)  # after they have moved
    assert engine.metrics()["weights"] == weights

    def gap(groups) -> float:
        return parity(learner.logprobs, pairs(groups)).largest

    for number in range(3):
        engine.update_weights(learner.named_weights())
        groups = sample(engine, base=10 * number + 5 * rank)
        engine.sleep()
        assert gap(groups) < 5e-5, (zero, weights, number)
        learner.update(pack(sequences(PROMPTS, groups), 2048))
        assert gap(groups) > 1e-2, "the update changed too little to tell old weights from new"


def main(zero: str, weights: str) -> None:
    with ranks() as (rank, _):
        rounds(int(zero), weights, rank)
        if rank == 0:
            print("all checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
