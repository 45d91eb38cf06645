"""How the KV cache alone is released on a GPU, by vLLM's own calls: newer versions have one for it, the oldest accepted has not."""

import pytest

from fastgrpo.rollout.vllm import InProcessVllm


class Calls:
    """An LLM that keeps what it is asked, with the calls of vLLM 0.32."""

    def __init__(self):
        self.seen = []

    def sleep(self, level):
        self.seen.append(f"sleep {level}")

    def wake_up(self, tags):
        self.seen.append(f"wake {' '.join(tags)}")

    def release_kv_cache_memory(self):
        self.seen.append("release")


class OldCalls(Calls):
    """Those of 0.26: looking for the newer one finds nothing."""

    release_kv_cache_memory = property(lambda self: self.missing)


@pytest.mark.parametrize(
    ("calls", "level", "on_gpu", "seen"),
    [
        (Calls, 0, True, ["sleep 0", "release", "wake kv_cache"]),
        (OldCalls, 0, True, ["sleep 1", "wake weights kv_cache"]),
        (OldCalls, 2, True, ["sleep 2", "wake kv_cache"]),
        (OldCalls, 0, False, ["sleep 0", "wake kv_cache"]),
        (Calls, 1, True, ["sleep 1", "wake kv_cache"]),
    ],
)
def test_the_cache_is_released_with_what_the_version_has(calls, level, on_gpu, seen):
    engine = InProcessVllm.__new__(InProcessVllm)
    engine.llm, engine.on_gpu = calls(), on_gpu
    engine.sleep(level)
    engine.wake("kv_cache")
    assert engine.llm.seen == seen
