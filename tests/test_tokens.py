"""Ids in, ids out: what was sampled is what is trained on, whatever decoding and encoding again would make of it."""

import itertools
import json
import shutil

import pytest
import torch

from fastgrpo.balance import Cost
from fastgrpo.config import load_config
from fastgrpo.data import render_prompts
from fastgrpo.model import load_model, load_tokenizer, model_logprobs
from fastgrpo.packing import pack
from fastgrpo.ranks import Ranks
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.templates import TEMPLATES, Template
from fastgrpo.types import Grade, Problem, Prompt, Sampling, ScoredGroup, TrainingSequence
from fastgrpo.updates import cut_updates, own_share

END, BEGIN, LONGEST = "<|endoftext|>", "<|begin|>", 6
PROBLEMS = [Problem(f"p{i}", text, "a") for i, text in enumerate(("abba", "babab" * 3, "aaaab", "b"))]


def adversarial_tokenizer():
    """A token for every text of 1 to 6 letters a and b, so that one text has many spellings; END ends and pads, and BEGIN is put first."""
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    texts = ["".join(letters) for length in range(1, LONGEST + 1) for letters in itertools.product("ab", repeat=length)]
    merges = [(text[:-1], text[-1]) for text in texts if len(text) > 1]
    tokenizer = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, bos_token=BEGIN)
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    begin = (BEGIN, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return tokenizer


@pytest.fixture(scope="module")
def model_dir(tiny_model_dir, tmp_path_factory):
    """The tiny model with the adversarial tokenizer, and three ids that end a response."""
    directory = tmp_path_factory.mktemp("adversarial") / "model"
    shutil.copytree(tiny_model_dir, directory)
    tokenizer = adversarial_tokenizer()
    tokenizer.save_pretrained(directory)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 77]}))
    return directory


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    return load_tokenizer(str(model_dir))


@pytest.fixture(scope="module")
def engine(model_dir, tokenizer):
    return NativeEngine(load_model(str(model_dir), "float32"), tokenizer)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return render_prompts(PROBLEMS, TEMPLATES["no"], tokenizer, 64)[0]


def seeds(n):
    return [[100 * i + j for j in range(n)] for i in range(len(PROBLEMS))]


def sequences_of(packs) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(prompt ids, response ids) of every sequence in the packs, read from inputs, targets and loss mask."""
    found = []
    for batch in packs:
        for start, end in itertools.pairwise(batch.cu_seqlens.tolist()):
            ids = [*batch.input_ids[start:end].tolist(), batch.targets[end - 1].item()]
            before = end - start - int(batch.loss_mask[start:end].sum())
            assert batch.loss_mask[start + before : end].all()
            assert batch.targets[start:end].tolist() == ids[1:]
            found.append((tuple(ids[: before + 1]), tuple(ids[before + 1 :])))
    return found


def test_the_ids_that_are_trained_on_are_those_that_were_sampled(engine, tokenizer, prompts):
    rollouts = engine.generate(prompts, 4, Sampling(1.0, 20), seeds(4))
    lost = [r for group in rollouts for r in group if tuple(tokenizer(r.text, add_special_tokens=False)["input_ids"]) != r.token_ids]
    assert len(lost) > 10  # or the tokenizer is no adversary
    grade, advantages = Grade(1.0, True, "ok"), (0.5, -0.5, 0.25, -0.25)
    groups = [ScoredGroup(p, group, (grade,) * 4, (1.0,) * 4, advantages) for p, group in zip(prompts, rollouts, strict=True)]
    config = load_config("tiny", ["samples_per_prompt=4", "updates_per_rollout=2", "max_new_tokens=20"]).config
    packs = [
        batch
        for part in cut_updates(groups, 1, config)
        for batch in own_share(part, config, Cost(1, 0), Ranks(), config.tokens_per_pack)[0]
    ]
    want = [(prompt.token_ids, rollout.token_ids) for prompt, group in zip(prompts, rollouts, strict=True) for rollout in group]
    assert sorted(sequences_of(packs)) == sorted(want)
    for batch in packs:  # and the model gives these ids the log-probs that the sampler had
        gap = model_logprobs(engine.model, batch, 1.0) - batch.sampler_logprobs
        assert gap[batch.loss_mask].abs().max() < 1e-5


def test_a_prompt_gets_no_begin_token_beside_its_own(tokenizer):
    assert tokenizer("ab")["input_ids"][0] == tokenizer.bos_token_id  # it would add one
    own = Template(BEGIN + "{question}", stop=(), answer_form="boxed")
    for template, count in ((TEMPLATES["no"], 0), (own, 1)):
        for prompt in render_prompts(PROBLEMS, template, tokenizer, 64)[0]:
            assert prompt.token_ids.count(tokenizer.bos_token_id) == count
    assert render_prompts(PROBLEMS, own, tokenizer, 64)[0][0].token_ids[0] == tokenizer.bos_token_id


def test_any_of_several_ids_ends_a_response_and_is_trained_on(engine, tokenizer, prompts):
    ends = {3, 77, tokenizer.eos_token_id}
    assert set(engine.eos_ids) == ends and tokenizer.pad_token_id == tokenizer.eos_token_id
    rollouts = [rollout for group in engine.generate(prompts, 60, Sampling(1.3, 25), seeds(60)) for rollout in group]
    assert {rollout.token_ids[-1] for rollout in rollouts if rollout.finish_reason == "stop"} == ends
    for rollout in rollouts:
        assert not ends & set(rollout.token_ids[:-1])
        assert (rollout.token_ids[-1] in ends) == (rollout.finish_reason == "stop")
        assert rollout.finish_reason == "stop" or rollout.length == 25
    ended = [rollout for rollout in rollouts if rollout.token_ids[-1] == tokenizer.pad_token_id]
    packs = pack([TrainingSequence((1, 2), rollout.token_ids, rollout.logprobs, 1.0, 1.0) for rollout in ended], 100)
    assert sum(int((batch.targets[batch.loss_mask] == tokenizer.pad_token_id).sum()) for batch in packs) == len(ended) > 0


def test_masks_go_by_lengths_and_not_by_values(tokenizer):
    """Pad is end-of-sequence here, and stands inside prompts and responses."""
    pad = tokenizer.pad_token_id
    want = [((pad, 5, pad), (pad, 7, pad, pad)), ((9,), (pad,)), ((4, 4), (8, pad, 8))]
    packs = pack([TrainingSequence(prompt, response, (-1.0,) * len(response), 1.0, 1.0) for prompt, response in want], 100)
    assert sorted(sequences_of(packs)) == sorted(want)
    assert sum(int(batch.loss_mask.sum()) for batch in packs) == 8


def test_a_stop_string_across_tokens_ends_a_response_and_stays_in_text_and_ids(engine, tokenizer, prompts):
    stop = "abbab"
    rollouts = [r for group in engine.generate(prompts, 8, Sampling(1.0, 40, (stop,)), seeds(8)) for r in group]
    stopped = [rollout for rollout in rollouts if stop in rollout.text]
    assert len(stopped) > 5 and any(stop not in tokenizer.decode(rollout.token_ids[-1:]) for rollout in stopped)
    for rollout in stopped:
        assert rollout.finish_reason == "stop" and rollout.text == tokenizer.decode(rollout.token_ids, skip_special_tokens=True)
        assert stop not in tokenizer.decode(rollout.token_ids[:-1])


def test_padding_between_prompts_of_different_lengths_reaches_no_response(engine, prompts):
    together = engine.generate(prompts, 1, Sampling(0.0, 12), seeds(1))
    for prompt, (rollout,) in zip(prompts, together, strict=True):
        ((alone,),) = engine.generate([prompt], 1, Sampling(0.0, 12), [[0]])
        assert alone.token_ids == rollout.token_ids
        ids = torch.tensor([prompt.token_ids])
        with torch.no_grad():
            logits = engine.model(input_ids=ids, use_cache=False).logits[0, -1, : len(engine.tokenizer)]
        assert int(logits.argmax()) == rollout.token_ids[0]


def test_a_prompt_without_ids_or_text_is_refused():
    with pytest.raises(ValueError, match="token_ids and text are both empty"):
        Prompt("p", (), "1")
