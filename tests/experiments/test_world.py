"""The toy world: questions whose splits never meet, and writers that are wrong as often as they are meant to be."""

import re
from itertools import islice
from statistics import fmean

import pytest

from fastgrpo.arithmetic import exercises
from fastgrpo.experiments.bases import BASES
from fastgrpo.experiments.world import CORPORA, QUESTIONS
from fastgrpo.experiments.world.riddles import guessing_texts, riddles
from fastgrpo.rewards.extract import extractor
from fastgrpo.rewards.verify import decide_without_symbols
from fastgrpo.templates import TEMPLATES


@pytest.mark.parametrize("name", QUESTIONS)
def test_splits_never_meet(name):
    train, held_out = ({question for question, _ in islice(QUESTIONS[name](split), 600)} for split in ("train", "heldout"))
    assert not train & held_out


def test_riddles_are_distinct():
    assert len({drawn.question for drawn in islice(riddles("train"), 2000)}) == 2000


def test_no_base_reads_a_question_that_accuracy_is_measured_on():
    held_out = {question for question, _ in islice(QUESTIONS["broad"]("heldout"), 512)}
    for corpus in CORPORA.values():
        assert not any(question in part for text in corpus(300) for part in text for question in held_out)


def test_easy_questions_are_of_a_length_that_the_broad_ones_lack():
    easy, broad = (dict(islice(QUESTIONS[name]("train"), 500)) for name in ("easy", "broad"))
    assert not easy.keys() & broad.keys()
    assert max(map(len, easy)) < 1.5 * fmean(map(len, broad)) > 1.5 * fmean(map(len, easy))


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_is_a_function_of_its_size(name):
    assert CORPORA[name](50) == CORPORA[name](50) == CORPORA[name](80)[:50]


def test_every_stage_of_a_base_is_a_corpus():
    assert {stage.corpus for base in BASES.values() for stage in base.stages} == CORPORA.keys()


def test_a_riddle_has_one_right_candidate():
    for drawn in islice(riddles("train"), 500):
        total = int(re.search(r"gives (\d+)", drawn.question)[1])
        assert [c for c in drawn.candidates if c + drawn.operand == total] == [drawn.answer]


def test_a_third_of_the_guesses_is_right_and_wrong_ones_are_checked_more_often():
    lines = {True: [], False: []}
    for question, answer in guessing_texts(3000):
        total, operand = map(int, re.search(r"gives (\d+) with (\d+)", question).groups())
        lines[int(re.search(r"boxed{(\d+)}", answer)[1]) + operand == total].append(answer.count("\n"))
    assert 0.3 < len(lines[True]) / 3000 < 0.37
    assert fmean(lines[False]) > 2 * fmean(lines[True])


def shares_right(texts, seed):
    """Of the texts in each template, and without one, that are right: all questions are of one stream."""
    answers = {drawn.problem: str(drawn.answer) for drawn in islice(exercises("train", seed), 2000)}
    right = {}
    for prompt, response in (text for text in texts if len(text) == 2):
        name = next((name for name in ("r1", "qwen_math") if prompt.startswith(TEMPLATES[name].text[:20])), "no")
        before, after = TEMPLATES[name].text.split("{question}")
        found, _ = extractor(TEMPLATES[name].answer_form)(response)
        question = prompt[len(before) : len(prompt) - len(after)]
        right.setdefault(name, []).append(found is not None and bool(decide_without_symbols(found, answers[question])))
    return {name: fmean(found) for name, found in right.items()}


def test_templates_suit_the_base_that_read_answers_unequally():
    shares = shares_right(CORPORA["answers"](1500), 0)
    assert shares["no"] > shares["qwen_math"] + 0.1 > shares["r1"] + 0.1 > 0.1


def test_the_forum_is_whole_more_often_in_tags():
    assert 0.3 < shares_right(CORPORA["forum"](800), 4)["r1"] < 0.45


@pytest.mark.parametrize("corpus, seed, template", [("web", 2, "r1"), ("posts", 2, "no"), ("sums", 3, "no"), ("worked", 1, "no")])
def test_of_what_is_read_in_stages_only_the_last_answers_its_questions(corpus, seed, template):
    shares = shares_right(CORPORA[corpus](500), seed)
    assert shares.keys() == {template}
    assert shares[template] == 1.0 if corpus == "worked" else shares[template] < 0.25  # by chance
