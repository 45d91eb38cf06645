"""Answers made to stall a grader cost little, lose their own reward and no other, and leave nothing behind; ordinary ones get through."""

import gc
import json
import os
import random
import time
from pathlib import Path

import pytest
from processes_seen import children

from fastgrpo.rewards import Grader, boxed_answer, tagged_answer
from fastgrpo.rewards.limits import too_heavy
from fastgrpo.types import Grade

pytestmark = pytest.mark.alone  # an answer has one second
FIXTURES = Path(__file__).parents[1] / "fixtures"
GOOD, REFUSED = Grade(1.0, True, "ok"), Grade(0.0, True, "unparsable")
HALF = r"\frac{1}{2}"

HEAVY = [
    "9^{9^{9^9}}",
    "9^9^9^9",
    "9**9**9",
    "10^{10^{10}}",
    "7^{300000000}",
    "3^{10^8}",
    r"\frac{1}{2^{10^{10}}}",
    r"\gcd(3^{10^8}, 7)",
    r"\log_{2}(10^{10^{10}})",
    "99999999!",
    "(10^6)!",
    "((9999!)!)!",
    r"\Gamma(10^{9})",
    r"\binom{1000000}{500000}",
    r"\binom{10^6}{5*10^5}",
    "(a+b+c+d+e+f)^{60}",
    r"\left(a+b+c+d\right)^{99}",
    "(x+1)^{1000}",
    r"\sum_{n=1}^{10^9} \frac{1}{n}",
    r"\prod_{n=1}^{10^9} n",
    r"\frac{1}{1+" * 50 + "x" + "}" * 50,
    "{" * 30 + "x" + "}" * 30,
    "(" * 190 + "x" + ")" * 190,
    "x\x00y",
    "\x1b[2J7",
]
SLOW = [  # that no look at the text finds
    r"\int_0^1 \frac{\sin(x)^5 e^{x^2}}{\sqrt{1+x^7}} dx",
    r"\int_0^\infty \frac{\sin(x) \cos(x^3)}{x + e^x} dx",
    r"\int_0^1 \int_0^1 \frac{e^{x^2 y}}{\sqrt{1+x^7+y}} dx dy",
]
ODD = [  # cheap for every parser, and no answers
    "}}}{{{",
    "{{{x",
    "\u0669^{\u0669^{\u0669}}",
    "\uff19\uff19\uff01",
    "\U0001d7d7\u2079\u2079",
    "\ud800",
    "\u202e\u0661",
    "__import__('os')._exit(3)",
    "$" * 300,
    "\\" * 300,
    "1e999999999",
    "\\frac{" * 60,
    "x" * 400,
]
ORDINARY = [
    "2^{2019}",
    "2^{2^{10}}",
    "3^{100}",
    "10^{10^5}",
    r"2^{1000000}",
    "10!",
    "2019!",
    "(n-1)!",
    "(2n+1)!!",
    r"\frac{20!}{10! \cdot 10!}",
    r"\binom{10}{3}",
    r"\binom{2019}{7}",
    r"\binom{n}{k}",
    r"\sum_{k=1}^{n} k^2",
    r"\sum_{k=1}^{2019} \frac{1}{k}",
    r"\prod_{i=1}^{n} (1+x_i)",
    r"\int_0^1 x^2 dx",
    "x^{2019}-1",
    "(x+1)^{100}",
    "(a+b+c)^{10}",
    r"(1+\sqrt{5})^{2019}",
    r"(-1)^{n+1} \cdot 3^{n^2}",
    r"\frac{1}{1+\frac{1}{1+\frac{1}{1+x}}}",
    r"\sqrt{1+\sqrt{1+\sqrt{1+\sqrt{2}}}}",
    r"6.02 \times 10^{23}",
    "123456789" * 20,
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"(-\infty, 2] \cup [3, \infty)",
    "7\n",
]


def texts(gold):
    return [text for entry in gold for text in texts(entry)] if isinstance(gold, list) else [str(gold)]


def items_of(round_number, hostile, total=200):
    """(response, gold, reward) of `total` answers in a random order: right ones, a fifth wrong ones, and the hostile ones."""
    items = [(rf"\boxed{{{text}}}", HALF, 0.0) for text in hostile]
    for n in range(total - len(hostile)):
        answer, gold = [(f"{n}+x", f"x+{n}"), (f"{n}", f"{n}.0"), (rf"\dfrac{{{n}}}{{7}}", rf"\frac{{{n}}}7"), (f"2x-{n}", f"-{n}+2x")][
            n % 4
        ]
        items.append((rf"\boxed{{{answer}}}", gold, 1.0) if n % 5 else (rf"\boxed{{{answer}+1}}", gold, 0.0))
    random.Random(round_number).shuffle(items)
    return items


@pytest.mark.parametrize("answer", HEAVY)
def test_what_cannot_be_computed_is_refused_without_a_worker(answer):
    assert too_heavy(answer)
    with Grader("boxed", "math_verify") as grader:
        (grade,) = grader.grade([(rf"\boxed{{{answer}}}", HALF)])
        assert grade == (REFUSED if boxed_answer(rf"\boxed{{{answer}}}")[1] else Grade(0.0, False, "ok"))
        assert grader._processes is None


@pytest.mark.parametrize("answer", ORDINARY)
def test_ordinary_answers_are_not_refused(answer):
    assert not too_heavy(answer)


@pytest.mark.parametrize("answer", [text for text in HEAVY if "\x1b" not in text])
def test_a_refused_text_is_right_where_it_is_the_gold(answer):
    with Grader("boxed", "fast") as grader:
        assert grader.grade([(rf"\boxed{{{answer}}}", answer)]) == [GOOD]


def test_no_gold_and_no_right_answer_of_the_graded_cases_is_refused():
    for line in (FIXTURES / "grader_cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        extract = boxed_answer if case["template_fn"] == "boxed_reward_fn" else tagged_answer
        answer = extract(case["response"])[0] if case["reward"] else None
        for text in [*texts(case["gold"]), *([] if answer is None else [answer])]:
            assert not too_heavy(text), text


def test_looking_at_a_text_takes_microseconds_however_it_is_nested():
    start = time.perf_counter()
    for answer in [
        *HEAVY,
        *ODD,
        "2^" * 200,
        "((" * 7 + "x" + "))" * 7,
        r"\binom" * 66,
        "!" * 400,
        "^" * 400,
        "_" * 400,
        "+".join("abcdefgh" * 25),
    ]:
        for _ in range(10):
            too_heavy(answer)
    assert time.perf_counter() - start < 0.5


# 7 s: the three slow answers meet their deadline of 1 s, thrice for each verifier
@pytest.mark.slow
@pytest.mark.parametrize("verifier", ["fast", "math_verify"])
def test_200_answers_with_20_hostile_ones_take_seconds_and_the_others_are_graded_as_ever(verifier):
    rng = random.Random(7)
    with Grader("boxed", verifier, workers=2) as grader:
        for round_number, hostile in enumerate([rng.sample(HEAVY, 20), [*ODD, *SLOW, *HEAVY[:3], "1" * 100_000], SLOW * 3 + HEAVY[-11:]]):
            items = items_of(round_number, hostile)
            start = time.monotonic()
            grades = grader.grade((text, gold) for text, gold, _ in items)
            assert time.monotonic() - start < 10
            assert [grade.reward for grade in grades] == [reward for _, _, reward in items]


def test_every_slow_answer_is_a_timeout_and_a_worker_killed():
    with Grader("boxed", "math_verify", deadline=0.3, workers=2) as grader:
        start = time.monotonic()
        grades = grader.grade([(rf"\boxed{{{answer}}}", HALF) for answer in SLOW * 4])
        assert [grade.status for grade in grades] == ["timeout"] * 12
        assert time.monotonic() - start < 6  # 2 s of deadlines, and replacing 12 workers


def test_odd_texts_are_wrong_answers_and_nothing_else():
    with Grader("boxed", "math_verify", deadline=10, workers=2) as grader:
        grades = grader.grade([(rf"\boxed{{{answer}}}", HALF) for answer in ODD] + [(r"\boxed{x+1}", "1+x")])
        assert grades[-1] == GOOD
        assert all(grade.reward == 0 and grade.status in ("ok", "unparsable") for grade in grades[:-1])


def resources():
    """(resident MiB, open files, threads, processes below) of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), len(children())


# 9 s and 95 s: in each round, with math_verify, 6 answers meet their deadline of 1 s
@pytest.mark.long
@pytest.mark.parametrize("verifier", ["fast", "math_verify"])
def test_20_rounds_with_20_hostile_answers_leave_no_process_no_file_and_no_memory(verifier):
    hostile = [*HEAVY[:8], *ODD[:6], *SLOW, *SLOW]
    before = resources()
    with Grader("boxed", verifier, workers=2) as grader:
        first = None
        for round_number in range(20):
            items = items_of(round_number, hostile)
            grades = grader.grade((text, gold) for text, gold, _ in items)
            assert [grade.reward for grade in grades] == [reward for _, _, reward in items]
            memory, files, threads, processes = resources()
            first = first or memory
            assert files <= before[1] + 3  # a socket for each worker that lives, and one for the nursery
            assert (threads, processes) == (before[2] + 2, before[3] + 1)
            assert memory - first < 20
    assert resources()[1:] == before[1:]
