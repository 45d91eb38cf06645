"""What each rank runs: honest and planted updates at every ZeRO stage; rank 0 writes the errors against the naive formula.

exactness_program.py TIED_MODEL UNTIED_MODEL OUTPUT.json, alone or under torchrun.
"""

import random
import sys

from deepspeed_runs import (
    adamw_error,
    compare,
    deepspeed_result,
    forget_the_last_pass,
    forget_the_ranks,
    fresh,
    honest,
    ranks,
    settings,
    write,
)
from exactness import PLANTED, float64_model, naive_result, random_cut, random_updates, sgd, without_silent

from fastgrpo.config import LossConfig
from fastgrpo.learner.native import adamw

LOSS = LossConfig(type="dr_grpo")


def main(tied: str, untied: str, output: str) -> None:
    with ranks() as (rank, size):
        rng = random.Random(7)
        updates = random_updates(rng, LOSS)

        def naive(model_directory, make):
            return naive_result(float64_model(model_directory), None, updates, LOSS, make) if rank == 0 else None

        want, want_untied, want_adamw = naive(tied, sgd), naive(untied, sgd), naive(tied, adamw)
        cuts = {count: [random_cut(without_silent(part, LOSS), count, rng) for part in updates] for count in (1, 3, 7)}
        whole = [random_cut(part, 5, rng) for part in updates]  # groups without signal not dropped

        def spread(packs):
            return packs[rank::size]

        def all_on_one(packs):
            return packs if rank == size - 1 else []

        def run(zero, cut, make=sgd, share=spread, plant=honest, spoil=None, model=tied, **others):
            return deepspeed_result(fresh(model), cut, LOSS, make, settings(zero, **others), plant, share, spoil)

        found = {"honest": {}, "adamw": {}, "planted": {}}
        for zero in range(4):
            right, bugs = found["honest"], found["planted"]
            right[f"zero {zero}, 7 packs"] = compare(run(zero, cuts[7]), want)
            right[f"zero {zero}, all on one rank, recomputed"] = compare(run(zero, cuts[3], share=all_on_one, recompute=True), want)
            if size < 4:  # processes that share two cores: the rest is the same there
                right[f"zero {zero}, 1 pack"] = compare(run(zero, cuts[1]), want)
                right[f"zero {zero}, with silent groups"] = compare(run(zero, whole), want)
                right[f"zero {zero}, untied"] = compare(run(zero, cuts[3], model=untied), want_untied)
            found["adamw"][f"zero {zero}"] = adamw_error(run(zero, cuts[7], adamw), want_adamw)
            if size == 1 or (size == 2 and zero == 3):
                for name, plant in PLANTED.items():
                    bugs[f"zero {zero}, {name}"] = compare(run(zero, cuts[7], plant=plant), want)
            if size > 1:
                bugs[f"zero {zero}, ranks forgotten"] = compare(run(zero, cuts[7], spoil=forget_the_ranks), want)
            if zero == 2:
                bugs["zero 2, last pass not told"] = compare(run(2, cuts[7], share=all_on_one, spoil=forget_the_last_pass), want)
        for zero, offload in ((1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "all")) if size < 4 else ():
            right[f"zero {zero}, offload {offload}"] = compare(run(zero, cuts[3], offload=offload), want)
        write(rank, output, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
