"""What is said of a wrong setting, in one line: what was given, what is allowed, and where it came from."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fastgrpo.settings_file import Recipes, Setting


def invalid(
    error: ValidationError,
    source: str,
    known: Mapping[str, Setting],
    fields: Mapping[str, FieldInfo],
    recipes: Recipes,
    skip_missing: bool,
) -> list[str]:
    """One line for each setting that pydantic refused, or missed in `source`."""
    lines = {}
    for item in error.errors():
        key = next((key for n in (1, 2) if (key := ".".join(map(str, item["loc"][:n]))) in fields), None)
        if key is None:  # a rule over several settings, which names them itself
            lines[str(item["loc"])] = f"{source}: {item['ctx']['error']}"
            continue
        rule = f"it must be {allowed(fields[key])} ({fields[key].description})"
        if item["type"] != "missing":
            reason = str(item["ctx"]["error"]) if item["type"] == "value_error" else rule
            lines[key] = f"{known[key].origin}: {key} is {_short(known[key].value)}; {reason}"
        elif not skip_missing:
            lines[key] = f"{source}: {key} is missing; {rule}. Set it, or begin the file with `recipe: {recipes.default}`"
    return list(lines.values())


def allowed(field: FieldInfo) -> str:
    """What a field accepts, in words."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)] or [field.annotation]
    optional = " or null" if type(None) in get_args(field.annotation) else ""
    if get_origin(field.annotation) is Literal:
        return ("one of " if len(kinds) > 1 else "") + ", ".join(map(str, kinds))
    if get_origin(field.annotation) is tuple and get_origin(kinds[0]) is Literal:
        return f"one or a list of {', '.join(get_args(kinds[0]))}"
    if get_origin(field.annotation) is tuple:
        return "a list of numbers, [] for none" if kinds[0] is float else "text or a list of texts, [] for none"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(limit, name)}" for limit in field.metadata for name, sign in signs.items() if hasattr(limit, name)]
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text, in quotes if it looks like a number"}[kinds[0]]
    return " ".join([kind, " and ".join(bounds)]).strip() + optional


def unknown(key: str, setting: Setting, fields: Mapping[str, FieldInfo]) -> str:
    """A key that does not exist, with those most like it in whole or in their last part (`beta` for `loss.beta`)."""
    if any(name.startswith(f"{key}.") for name in fields):
        return (
            f"{setting.origin}: {key} is a section, not a value; set one of {', '.join(name for name in fields if key in name.split('.'))}"
        )
    scores = {name: max(_likeness(key, name), _likeness(key.rpartition(".")[2], name.rpartition(".")[2])) for name in fields}
    best = max(scores.values())
    names = [name for name, score in scores.items() if score == best]
    if best < 0.6:
        return f"{setting.origin}: unknown key {key!r}; the keys are {', '.join(fields)}"
    return f"{setting.origin}: unknown key {key!r}; did you mean {' or '.join(names)}?"


def _likeness(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()


def _short(value: object) -> str:
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 80
    return "null" if value is None else shortener.repr(value)
