r"""How closely both modes agree with the paper's grader: on answers it was recorded to grade, and on the faults that only `compat` repeats.

grader_cases.jsonl holds 350 of its verdicts: 175 responses, each with both verifiers.
"""

import json
from pathlib import Path

import pytest

from fastgrpo.rewards import decide_without_symbols, equivalent
from fastgrpo.rewards.compat import grade, refused
from fastgrpo.rewards.extract import extractor

CASES = [json.loads(line) for line in (Path(__file__).parent / "grader_cases.jsonl").read_text().splitlines()]
FORMS = {"boxed_reward_fn": "boxed", "answer_tag_reward_fn": "answer_tag"}
TIMED_OUT = "99999999!"  # the paper's grader ran out of time, for which it also denies the form; here the parser refuses at once
KEPT = {("fast", r"So the final answer is \boxed{10 \mathrm{~km}}.")}  # a unit in upright letters is a unit, as in \text{ km}

FAULTS = [  # (answer, gold, what `fast` says in the default mode, what the paper's grader says)
    ("55°", "55", True, False),  # the degree sign
    (r"10 \mathrm{~km}", "10", True, False),  # a unit in upright letters
    (r"x=\frac{1}{2}", r"$\frac{1}{2}$", True, False),  # dollars around the gold
    (r"\textbf{x = 5}", "5", True, False),  # a name inside a style
    (r"\frac{1}{2}.", r"\frac{1}{2}", True, False),  # the full stop of the sentence
    (r"-1\frac{1}{2}", r"-\frac{3}{2}", True, False),  # a negative mixed number
    (r"-1\frac{1}{2}", r"-\frac{1}{2}", False, True),
    (r"r \pi", r"\pi r", True, False),  # pi beside a letter
    ("x+y+z", "z+y+x", True, False),  # three letters in another order
    (r"(0.5, \frac{\sqrt{3}}{2}, (1))", r"(\frac{1}{2}, \frac{\sqrt{3}}{2}, (1))", True, False),  # brackets inside a tuple
    ("a+5", "c+5", False, True),  # letters that are also names of units
    (r"\frac{a+1}{2}", r"a+\frac{1}{2}", False, True),  # sums in fractions
    (r"2x^{n+1}\pi", r"2 x^n \pi+1\pi", False, False),
    (r"\sqrt[3]{2}", r"\sqrt{2}", False, True),  # the degree of a root
    (r"\binom{5}{2}", "52", False, True),  # binomial coefficients
    ("3.3e-10", "3.61e-10", False, True),  # small numbers
    ("25168", "2516_8", False, True),  # bases
    ("1", r"1 \text{ or } -2", False, True),  # what follows a spaced \text
    (r"x \ne 2", "2x", False, True),  # a command that the converter drops
]
BOTH = [  # equal in both modes with `fast`
    ("3pi/2", r"\frac{3}{2}\pi"),
    ("2*sqrt(3)", r"\sqrt{12}"),
    ("1.5e-3", "0.0015"),
    ("1e11", "100000000000"),
    ("n!/2", r"\frac{n!}{2}"),
    ("7 3/4", "7.75"),
    (r"\text{Yes}", "yes"),
    ("(1.0, 2)", "(1,2)"),
    ("5 square units", "5"),
    (r"x \leq 2", r"x \le 2"),
    (r"\boxed{5}", "5"),
    (r"\{1, 2\}", "1,2"),
    (r"12,\!345", "12345"),
]
NEITHER = [  # equal in neither mode with `fast`
    (r"\frac{2}{4}", r"\frac{1}{2}"),
    ("0.5", r"50\%"),
    (r"3,\frac{\pi}{2}", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"x \in [0,1]", "[0,1]"),
    (r"\{3,2,1\}", r"\{1,2,3\}"),
    ("5 million", "5000000"),
    ("75000000", r"7.5 \times 10^7"),
    ("7.5e7", r"7.5 \times 10^7"),
    (r"\theta=\pi/4", r"\pi/4"),
    ("2516", "2516_8"),
    ("5^{1/2}", r"\sqrt{5}"),
    ("120", "5!"),
    ("99999999!", r"\frac{1}{2}"),
    ("9^sqrt(99999999999999)", "x"),
    ("seat", "east"),
]
GOLDS = (Path(__file__).parent / "golds.txt").read_text().splitlines()  # spellings from the five benchmarks


def verdict(case, compat):
    """(whether equal, whether formatted); the hostile answers that Math-Verify computes for ever count as different."""
    answer, formatted = extractor(FORMS[case["template_fn"]], compat)(case["response"])
    if answer is None or (case["category"] == "hostile" and case["verifier"] == "math_verify"):
        return False, formatted
    return equivalent(answer, case["gold"], case["verifier"], compat), formatted


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("verifier", ["fast", "math_verify"])
def test_recorded_verdicts_come_back_but_for_the_named_ones(verifier, compat):
    cases = [case for case in CASES if case["verifier"] == verifier]
    differing = {case["response"] for case in cases if verdict(case, compat) != (case["reward"] == 1.0, case["formatted"])}
    kept = set() if compat else {response for kept_verifier, response in KEPT if kept_verifier == verifier}
    assert len(cases) == 175
    assert differing - kept == {case["response"] for case in cases if TIMED_OUT in case["response"]}
    assert kept <= differing


@pytest.mark.parametrize(("answer", "gold", "ours", "papers"), FAULTS)
def test_the_papers_faults_come_back_only_with_compat(answer, gold, ours, papers):
    assert equivalent(answer, gold, "fast") is ours
    assert equivalent(answer, gold, "fast", compat=True) is papers


@pytest.mark.parametrize("compat", [False, True])
def test_both_modes_agree_on_ordinary_spellings(compat):
    assert [pair for pair in BOTH if not equivalent(*pair, "fast", compat)] == []
    assert [pair for pair in NEITHER if equivalent(*pair, "fast", compat)] == []


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("verifier", ["fast", "math_verify"])
def test_every_gold_equals_itself_with_and_without_dollars(verifier, compat):
    assert len(GOLDS) >= 80
    assert [gold for gold in GOLDS if not equivalent(gold, gold, verifier, compat)] == []
    assert [gold for gold in GOLDS if not equivalent(gold.strip("$"), [gold], verifier, compat)] == []


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("verifier", ["fast", "math_verify"])
def test_the_cheap_decision_agrees_with_the_worker_in_either_mode(verifier, compat):
    for answer, gold in [fault[:2] for fault in FAULTS] + BOTH + NEITHER:
        if decide_without_symbols(answer, gold, compat) is not None and TIMED_OUT not in answer:
            assert decide_without_symbols(answer, gold, compat) == equivalent(answer, gold, verifier, compat), (answer, gold)


def test_compat_keeps_repetitive_text_from_math_verify():
    assert refused("x" * 129, "1") and refused("1", "ab" * 65)
    assert not refused("x" * 128, "1")
    unique = "".join(map(chr, range(200, 290)))
    assert refused(unique[:65] * 2, "1") and not refused(unique + unique[:40], "1")
    ones = "+".join(["1"] * 65)
    assert equivalent(ones, "65", "math_verify") and not equivalent(ones, "65", "math_verify", compat=True)
    assert not refused(" ".join(str(number**3) for number in range(40)), "1")


def test_compat_never_evaluates_code(tmp_path):
    marker = tmp_path / "marker"
    for text in (f"open('{marker}','w')", "__import__('os')", "().__class__", "pi.func", "x.is_real", "[x for x in x]", "ln(x)(x)"):
        assert not grade(text, "1/2")
    assert not marker.exists()
