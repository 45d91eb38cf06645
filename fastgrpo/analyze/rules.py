"""The offline judge: patterns instead of a language model. README.md beside this file states the rules, and what they miss.

What would surprise: for answering, the first mark decides. A text that goes on with the question and answers it later goes on.
"""

from __future__ import annotations

import re

ANSWERS = re.compile(
    r"""
    \\boxed | <answer> | \#\#\#\# | ```
    | \banswer\s*(?:is|:|=)
    | \b(?:therefore|thus|hence|solution|step\ 1|first,|let's|let\ us|let\ me|recall|note\ that)\b
    | \bto\ (?:solve|find|determine|calculate|compute|answer|simplify|evaluate|prove|get)\b
    | \bwe\ (?:can|have|need|know|get|start|use|first|must|should|will)\b
    | \bi\ (?:will|know|think|can|have\ to|need\ to)\b
    | [^\s=<>!]\s*=\s*[^\s=]
    """,
    re.IGNORECASE | re.VERBOSE,
)
GOES_ON = re.compile(
    r"""
    \A[\s,.;:$)]*(?-i:where|if|such\ that|given|and|or|when|with|in\ terms\ of|assuming|for|rounded|expressed)\b
    | \b(?:express|give|write|enter|round|leave|state|provide|submit|explain|choose|select)\s+(?:your|all|the\ (?:correct|best))\b
    | \([A-E]\) | ^[ \t]*[A-E][.)]\s | \[asy\]
    | \?
    | \b(?:problem|question|exercise|example)\s*\#?\d | ^[ \t]*(?:user|human|question|q)\s*:
    | \b(?:homework|thanks|thank\ you|help\ me|please\ help|need\ help|can\ someone|posted|asked\ by|forum|hint)\b
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
REFLECTS = re.compile(
    r"""
    (?:\A|[.!?]\s+|\n[ \t]*)(?:but\ |oh,?\ |no,?\ )?wait\b[\s,.!:] | \bhmm+\b
    | \b(?:on|upon)\ (?:second\ thought|closer\ inspection|reflection)\b
    | \blet(?:'s|\ us|\ me)\ (?:now\ |quickly\ |just\ )?(?:check|verify|confirm|go\ back|try\ again|start\ over)\b
    | \b(?:i|we)\ (?:have\ |may\ have\ |must\ have\ )?made\ (?:a|an|some)\ (?:\w+\ )?(?:mistake|error)
    | \b(?:this|that)(?:'s|\ is|\ was|\ seems|\ looks|\ can't\ be|\ cannot\ be)\ (?:not\ (?:right|correct)|wrong|incorrect|right\b)
    | \b(?:check|verify)(?:ing)?\ (?:the|my|our|this|that)\ (?:answer|work|solution|result|calculations?|steps?|reasoning)\b
    | \b(?:try|check|think|look)(?:ing)?\ (?:it\ |this\ )?again\b | \bdouble[-\ ]check
    | \bre-?(?:check|consider|examin|evaluat|assess|think|verif|calculat)(?:e|y|es|ed|ing|ation)?\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
CODE_LINE = re.compile(
    r"(?:#|import |from \w+ import|def |(?:for|while|if|elif|with) .*:$|(?:else|try):$|return\b|[\w.\[\], ]+[-+*/]?=|[\w.]+\(.*\)$)"
)
SURELY_CODE = re.compile(r"(?:import |from \w+ import|def \w+\(|return\b|print\()")
NUMBER = re.compile(r"(?<!\w)\d[\d.,/]*(?!\w)")  # not a part of a word
BARE_WORDS = 10  # such as "It is 5 apples."
WORDS_BESIDE_CODE = 8  # such as "Here is a Python program that solves it:"


def answers(text: str) -> int:
    """1 where the text tries to answer, 0 where it goes on with the question or says nothing."""
    first = text.strip().partition("\n")[0]
    if len(first.split()) <= BARE_WORDS and NUMBER.search(first) and not GOES_ON.search(first):
        return 1
    answering, going_on = ANSWERS.search(text), GOES_ON.search(text)
    if answering is None or going_on is None:
        return int(answering is not None)
    return int(answering.start() < going_on.start())


def reflects(text: str) -> int:
    """3 only code, 2 reflection, 1 none, 0 off-topic: what does not try to answer."""
    prose = CODE_BLOCK.sub(" ", text)
    if only_code(text, prose):
        return 3
    if REFLECTS.search(prose):
        return 2
    return answers(text)


def only_code(text: str, prose: str) -> bool:
    """Fenced code with hardly a word beside it, or lines that are all code although nothing fences them."""
    if prose != text:
        return len(re.findall(r"[A-Za-z]{2,}", prose)) <= WORDS_BESIDE_CODE
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return all(CODE_LINE.match(line) for line in lines) and any(SURELY_CODE.match(line) for line in lines)
