"""Prompts made of problems, and the order in which they are drawn."""

import pytest
from conftest import byte_tokenizer

from fastgrpo.data import draw_prompts, render_prompts
from fastgrpo.errors import InputError
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Problem, Prompt


def test_prompts_are_the_rendered_bytes_and_nothing_else():
    problem = Problem("a", "2 + {3}?", ["5", "five"], {"level": 3})
    tokenizer = byte_tokenizer()
    (prompt,), dropped = render_prompts([problem], TEMPLATES["r1"], tokenizer, 1000)
    assert tokenizer.decode(prompt.token_ids) == TEMPLATES["r1"].render("2 + {3}?")
    assert (prompt.id, prompt.answer, prompt.problem, prompt.columns, dropped) == ("a", ["5", "five"], "2 + {3}?", {"level": 3}, 0)


def test_no_beginning_of_sequence_is_added():
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)])
    assert tokenizer("ab")["input_ids"][0] == 256  # the tokenizer would add one
    (prompt,), _ = render_prompts([Problem("a", "ab", "1")], TEMPLATES["no"], tokenizer, 10)
    assert prompt.token_ids == tuple(tokenizer("ab", add_special_tokens=False)["input_ids"])
    assert 256 not in prompt.token_ids


def test_longer_prompts_are_dropped_and_counted():
    problems = [Problem(str(n), "x" * n, "1") for n in (5, 6, 4, 7, 5)]
    prompts, dropped = render_prompts(problems, TEMPLATES["no"], byte_tokenizer(), 5)
    assert ([prompt.id for prompt in prompts], dropped) == (["5", "4", "5"], 2)


def test_it_is_an_error_when_every_prompt_is_too_long():
    problems = [Problem(str(n), "x" * n, "1") for n in (9, 7)]
    with pytest.raises(InputError, match=r"max_prompt_tokens=6; the shortest has 7 tokens"):
        render_prompts(problems, TEMPLATES["no"], byte_tokenizer(), 6)


PROMPTS = [Prompt(str(i), (i,), "1") for i in range(10)]


def drawn(count: int, steps: range, seed: int = 0) -> list[str]:
    return [prompt.id for step in steps for prompt in draw_prompts(PROMPTS, count, step, seed)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10, 25])
def test_each_epoch_is_a_permutation_of_all_prompts(count):
    ids = drawn(count, range(1, 41))
    epochs = [ids[start : start + 10] for start in range(0, len(ids) - 9, 10)]
    assert all(sorted(epoch, key=int) == [str(i) for i in range(10)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # each its own


def test_a_step_draws_the_same_whatever_was_drawn_before():
    whole = drawn(4, range(1, 9))
    assert drawn(4, range(6, 7)) == whole[20:24]
    assert drawn(8, range(1, 5)) == whole  # larger steps walk the same order


def test_another_seed_draws_another_order():
    assert drawn(10, range(1, 2), seed=1) != drawn(10, range(1, 2), seed=2)
