"""What one process runs: the real vLLM engine under ZeRO 3 fails, and is built again where no tensor of the model is whole.

It fails twice: while it samples, after updates that it was told of, and half way through a push of new weights.
"""

from rollout.colocation import CONTEXT, PROMPTS, byte_tokenizer, pairs, sample, sequences, tiny_model

from fastgrpo.config import load_config
from fastgrpo.engines import make_both
from fastgrpo.packing import pack
from fastgrpo.rollout.parity import parity

GIVEN = [
    "learner.engine=deepspeed",
    "learner.zero=3",
    "dtype=float32",
    "lr=3e-3",
    "rollout.engine=vllm",
    "rollout.sequences=64",
    "rollout.cache_gib=0.0625",
    f"max_prompt_tokens={CONTEXT - 16}",
    "max_new_tokens=16",
]


def main() -> None:
    model = tiny_model("qwen tied")
    learner, engine = make_both(load_config("tiny", GIVEN).config, model, byte_tokenizer())
    assert all(parameter.numel() == 0 for parameter in model.parameters())

    def improve(groups) -> None:
        learner.update(pack(sequences(PROMPTS, groups), 2048))

    def failing(*arguments):
        raise ValueError("planted")

    def breaking():
        for k, item in enumerate(learner.named_weights()):
            if k == 5:
                failing()
            yield item

    def require_current(groups) -> None:
        assert parity(learner.logprobs, pairs(groups)).largest < 5e-5

    improve(sample(engine))
    engine.update_weights(learner.named_weights())
    want = sample(engine)
    engine.engine.vllm.draw = failing
    groups = sample(engine)
    assert [[one.token_ids for one in group] for group in groups] == [[one.token_ids for one in group] for group in want]
    require_current(groups)
    improve(groups)
    engine.update_weights(breaking())
    require_current(sample(engine))
    assert engine.metrics()["failures"] == ["ValueError: planted"] * 2
    engine.close()
    print("all checked")


if __name__ == "__main__":
    main()
