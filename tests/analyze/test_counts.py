"""What the analyses count, on responses made by hand: every number is one that can be counted by eye."""

from fastgrpo.accuracy import Prediction
from fastgrpo.analyze.answering import ANSWERING, answering_row, choose_template
from fastgrpo.analyze.excerpts import AROUND, passage
from fastgrpo.analyze.exploration import exploration_row
from fastgrpo.analyze.judge import RuleJudge, Verdict
from fastgrpo.analyze.lengths import length_rows
from fastgrpo.analyze.reflection import REFLECTION, accuracy_by_reflection, reflection_columns, reflection_row
from fastgrpo.analyze.samples import Draw

LEVELS = {"a": "1", "b": "2", "c": "2"}


def prediction(id, sample, text, right=False, length=10, finish_reason="stop", formatted=True) -> Prediction:
    return Prediction("set", id, sample, f"problem {id}", "1", text, length, finish_reason, formatted, "ok", right)


def draw(*predictions, template="no", temperature=1.0) -> Draw:
    return Draw(template, temperature, predictions, LEVELS)


RESPONSES = draw(
    prediction("a", 0, "x = 1. LET ME RECHECK: wait, no.", right=True, length=10),  # keyword; the judge: 2
    prediction("a", 1, "x = 1, after a reassessment", length=20),  # keyword inside a word; 1
    prediction("a", 2, "x = 1", right=True, length=30),  # neither; 1
    prediction("b", 0, "x = 2.\nHmm, no: 3", length=40, formatted=False),  # the judge alone; 2
    prediction("b", 1, "x = 2. Wait, I rethink and double-check", length=50, finish_reason="length"),  # both; 2
    prediction("b", 2, "", length=1),  # 0
    prediction("c", 0, "import math\nprint(math.pi)", length=6),  # 3
    prediction("c", 1, "x = 3", right=True, length=7),  # 1
    prediction("c", 2, "unreadable to the judge: recheck, think again", length=8),  # keyword; no verdict
)
VERDICTS = [*RuleJudge().judge(REFLECTION, RESPONSES.predictions)[:8], Verdict(None, "unparsed")]


def test_reflection_is_counted_per_response_and_per_question_by_three_methods():
    keywords, columns = reflection_columns(RESPONSES, VERDICTS)
    row = reflection_row(RESPONSES, VERDICTS, keywords)
    assert [column["category"] for column in columns] == [2, 1, 1, 2, 2, 0, 3, 1, None]
    assert keywords[4] == ["double-check", "rethink"] and columns[4]["keywords"] == keywords[4]
    assert (row["responses"], row["questions"], row["ok"], row["unparsed"], row["failed"]) == (9, 3, 8, 1, 0)
    assert row["categories"] == {"off-topic": 1, "no reflection": 3, "reflection": 3, "only code": 1}
    assert row["reflecting"] == {
        "keywords": {"responses": 4, "questions": 3},
        "judge": {"responses": 3, "questions": 2},
        "both": {"responses": 2, "questions": 2},
    }
    assert (row["accuracy"]["judge"]["with"], row["accuracy"]["judge"]["without"]) == (1 / 3, 2 / 6)


def test_accuracy_with_and_without_reflection_question_by_question():
    found = accuracy_by_reflection(RESPONSES.predictions, {0, 3, 4})
    assert found == {  # a: 1 against 1/2; b: 0 against 0; c has no reflecting response
        "with": 1 / 3,
        "without": 1 / 3,
        "questions": 2,
        "with_mean": 0.5,
        "without_mean": 0.25,
        "better": 1,
        "equal": 1,
        "worse": 0,
    }
    nothing = accuracy_by_reflection(RESPONSES.predictions, set())
    assert (nothing["with"], nothing["without"], nothing["questions"], nothing["with_mean"]) == (None, 3 / 9, 0, None)


def test_lengths_by_level_and_by_category():
    levels = length_rows(RESPONSES.predictions, [LEVELS[p.id] for p in RESPONSES.predictions])
    assert list(levels) == ["1", "2", "all"]
    assert levels["1"] == {
        "unformatted": {"responses": 0, "length": None, "characters": None},
        "right": {"responses": 2, "length": 20, "characters": (len("x = 1. LET ME RECHECK: wait, no.") + len("x = 1")) / 2},
        "wrong": {"responses": 1, "length": 20, "characters": len("x = 1, after a reassessment")},
        "truncated": {"responses": 0, "length": None, "characters": None},
    }
    assert {name: cell["length"] for name, cell in levels["2"].items()} == {"unformatted": 40, "right": 7, "wrong": 5, "truncated": 50}
    row = reflection_row(RESPONSES, VERDICTS, reflection_columns(RESPONSES, VERDICTS)[0])
    assert list(row["lengths_by_category"]) == ["no reflection", "off-topic", "only code", "reflection", "unparsed", "all"]
    assert row["lengths_by_category"]["reflection"]["truncated"] == {"responses": 1, "length": 50, "characters": 39}
    assert row["lengths_by_level"] == levels


def test_excerpts_are_of_different_questions_and_first_those_that_both_call_reflection():
    keywords, _ = reflection_columns(RESPONSES, VERDICTS)
    found = reflection_row(RESPONSES, VERDICTS, keywords)["excerpts"]
    assert [(each["question"], each["keywords"], each["judged"]) for each in found] == [
        ("problem a", ["recheck"], True),
        ("problem b", ["double-check", "rethink"], True),
        ("problem c", ["recheck", "think again"], False),
    ]
    assert found[0]["right"] and found[1]["passage"] == "x = 2. Wait, I rethink and double-check"
    assert reflection_row(draw(prediction("a", 0, "x = 1")), [Verdict(1)], [[]])["excerpts"] == []


def test_a_passage_stands_around_what_tells():
    text = f"{'a' * 500} Let me check my work. {'b' * 500}"
    assert "Let me check" in passage(text, []) and len(passage(text, [])) < 2 * AROUND + 10
    assert passage(text + " I recheck it.", ["recheck"]).endswith("I recheck it.")
    assert passage("short and plain", []) == "short and plain"


def test_the_answering_share_is_of_what_was_judged_and_the_largest_over_all_temperatures_is_chosen():
    texts = ["x = 1", "To solve it", " What is 3?", ""]
    responses = draw(*(prediction("a", i, text) for i, text in enumerate(texts)))
    verdicts = RuleJudge().judge(ANSWERING, responses.predictions)
    assert answering_row(responses, verdicts) == {
        "template": "no",
        "temperature": 1.0,
        "share": 0.5,
        "answering": 2,
        "ok": 4,
        "unparsed": 0,
        "failed": 0,
    }
    broken = [*verdicts[:2], Verdict(None, "failed"), Verdict(None, "unparsed")]
    assert answering_row(responses, broken)["share"] == 1.0
    assert answering_row(responses, [Verdict(None, "failed")] * 4)["share"] is None

    def row(template, answering, ok):
        return {"template": template, "answering": answering, "ok": ok}

    rows = [row("no", 4, 4), row("no", 0, 4), row("r1", 3, 4), row("r1", 3, 4), row("qwen_math", 3, 4), row("qwen_math", 3, 4)]
    assert choose_template(rows) == {"template": "r1", "shares": {"no": 0.5, "r1": 0.75, "qwen_math": 0.75}}
    assert choose_template([row("no", 0, 0)]) == {"template": None, "shares": {}}
    assert choose_template([row("no", 0, 3)])["template"] == "no"


def test_exploration_is_the_unbiased_pass_at_8():
    def responses(samples, right):
        return draw(*(prediction(id, j, "", right=j < right[id]) for id in right for j in range(samples)), temperature=0.6)

    eight = exploration_row(responses(8, {"a": 1, "b": 0}))
    assert (eight["k"], eight["pass"], eight["temperature"]) == (8, 0.5, 0.6)
    ten = exploration_row(responses(10, {"a": 1, "b": 0, "c": 2}))  # 1 - C(9,8)/C(10,8) = 4/5; 1 - C(8,8)/C(10,8) = 44/45
    assert ten["k"] == 8 and abs(ten["pass"] - (4 / 5 + 0 + 44 / 45) / 3) < 1e-12
    assert exploration_row(responses(3, {"a": 1}))["k"] == 3
