"""Passages in which responses look at themselves again, to be read by people, as in Fig. 4 of arXiv:2503.20783."""

from __future__ import annotations

from collections.abc import Sequence

from fastgrpo.accuracy import Prediction
from fastgrpo.analyze import rules

SHOWN = 3  # of one draw, each of another question
AROUND = 160  # characters on either side of the word that tells


def excerpts(predictions: Sequence[Prediction], keywords: Sequence[Sequence[str]], reflecting: Sequence[bool]) -> list[dict]:
    """Up to SHOWN, those first that both a keyword and the judge call reflection; `reflecting` is the judge's word on each response."""
    ranked = sorted(range(len(predictions)), key=lambda i: -(bool(keywords[i]) + reflecting[i]))  # of equal ones the first
    found: dict[str, dict] = {}
    for i in ranked:
        if len(found) < SHOWN and (keywords[i] or reflecting[i]) and predictions[i].id not in found:
            found[predictions[i].id] = {
                "question": predictions[i].problem,
                "passage": passage(predictions[i].text, keywords[i]),
                "keywords": list(keywords[i]),
                "judged": reflecting[i],
                "right": predictions[i].right,
            }
    return list(found.values())


def passage(text: str, keywords: Sequence[str]) -> str:
    """What stands around the first keyword, or what the rules take for reflection; the beginning where neither is found."""
    places = [place for keyword in keywords if (place := text.lower().find(keyword)) >= 0]
    told = rules.REFLECTS.search(text)
    place = min(places) if places else told.start() if told else 0
    start, end = max(0, place - AROUND), min(len(text), place + AROUND)
    return f"{'... ' if start else ''}{text[start:end].strip()}{' ...' if end < len(text) else ''}"
