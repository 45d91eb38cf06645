"""Settings as text: YAML files, packaged recipes and `key=value` arguments become dotted keys, each with its origin.

What would surprise: only `true` and `false` are booleans here, so the template called `no` stays a word, and `1e-6` is a number.
Whether a key exists and what it allows is not known here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import yaml

COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Setting:
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings by dotted key and one line for each problem. `unreadable`: a whole source is absent, so missing keys tell nothing."""

    settings: Mapping[str, Setting] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unreadable: bool = False

    def then(self, later: Reading) -> Reading:
        """Both readings; where they set the same key, the later one wins."""
        settings = {**self.settings, **later.settings}
        return Reading(settings, self.problems + later.problems, self.unreadable or later.unreadable)


# YAML 1.2's plain scalars: YAML 1.1, which PyYAML follows, reads `no` as false, `1e-6` as text, 010 as 8 and 1:30 as 90.
_PLAIN = (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's own protocol)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would misread."""


for _tag, _pattern, _first in _PLAIN:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Dumper.add_representer(tuple, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True))


def read_yaml(text: str) -> object:
    """A whole document by these rules."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def yaml_line(key: str, value: object) -> str:
    """`key: value` in one line, which reads back as the same value."""
    form = {"Dumper": _Dumper, "width": float("inf"), "default_flow_style": False}
    line = yaml.dump({key: value}, allow_unicode=True, **form).rstrip("\n")
    return line if line.isprintable() else yaml.dump({key: value}, default_style='"', **form).rstrip("\n")


@dataclass(frozen=True, slots=True)
class Recipes:
    """The packaged settings of a command, in a folder of this package; `default` is the recipe that stands for none."""

    folder: str
    default: str

    def names(self) -> list[str]:
        return sorted(entry.name.removesuffix(".yaml") for entry in self._files().iterdir() if entry.name.endswith(".yaml"))

    def read(self, name: str) -> bytes:
        return (self._files() / f"{name}.yaml").read_bytes()

    def help(self, wanted: str) -> str:
        close = difflib.get_close_matches(wanted, self.names(), n=1)
        return f"{f'did you mean {close[0]}? ' if close else ''}the recipes are: {', '.join(self.names())}"

    def _files(self):
        return resources.files("fastgrpo").joinpath(*self.folder.split("/"))


TRAINING = Recipes("recipes", "tiny")
PRETRAINING = Recipes("recipes/pretrain", "tiny-text")


def read_source(source: str, sections: Collection[str], recipes: Recipes) -> Reading:
    """The settings of a packaged recipe or of a YAML file, on top of those of the recipe it extends with `recipe: NAME`.

    `sections` are the keys that hold other keys. Nothing is raised: see `Reading.problems`.
    """
    if source in recipes.names():
        name, content, where = f"recipe {source}", recipes.read(source), lambda line: f"recipe {source}"
    else:
        try:
            name, content, where = source, Path(source).read_bytes(), lambda line: f"{source}:{line}"
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            return _unreadable(_cannot_open(source, error, recipes))
    own = _read_text(content, name, where, sections, recipes)
    base = own.settings.get("recipe")
    if base is None:
        return own
    own = replace(own, settings={key: setting for key, setting in own.settings.items() if key != "recipe"})
    if base.value in recipes.names():
        return read_source(base.value, sections, recipes).then(own)
    return _unreadable(f"{base.origin}: no recipe {base.value!r}; {recipes.help(str(base.value))}").then(own)


def read_overrides(overrides: Sequence[str], sections: Collection[str]) -> Reading:
    """The settings of `dotted.key=value` arguments, each value read as YAML; the last one for a key wins."""
    reading = Reading()
    for argument in overrides:
        reading = reading.then(_read_override(argument, sections))
    return reading


def _read_override(argument: str, sections: Collection[str]) -> Reading:
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals or not key:
        return Reading(problems=(f"{COMMAND_LINE}: {argument!r} is not of the form key=value, such as steps=100 or loss.beta=0.01",))
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if key in sections and isinstance(node, yaml.MappingNode):
            pairs = _pairs(loader, f"{key}.", node, lambda line: COMMAND_LINE, sections)
            return Reading({name: setting for _, name, setting in pairs if setting is not None})
        value = None if node is None else loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        return Reading(problems=(f"{COMMAND_LINE}: {argument!r} is not valid YAML: {_reason(error)}",))
    return Reading({key: Setting(value, COMMAND_LINE)})


def _read_text(content: bytes, name: str, where: Callable[[int], str], sections: Collection[str], recipes: Recipes) -> Reading:
    try:
        loader = _Loader(content)
        root = loader.get_single_node()
        if root is None:
            default = recipes.default
            return _unreadable(f"{name}: the file is empty; write `key: value` lines, or `recipe: {default}` to begin with that recipe")
        if not isinstance(root, yaml.MappingNode):
            return _unreadable(f"{where(root.start_mark.line + 1)}: expected `key: value` lines, found {_kind(root)}")
        pairs = list(_pairs(loader, "", root, where, sections))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        return _unreadable(f"{where(mark.line + 1) if mark else name}: not valid YAML: {_reason(error)}")
    first: dict[str, int] = {}
    problems, settings = [], {}
    for line, key, setting in pairs:
        if key in first:
            problems.append(f"{where(line)}: {key} is given twice, first in line {first[key]}; keep one")
        elif setting is not None:
            settings[key] = setting
        first.setdefault(key, line)
    return Reading(settings, tuple(problems))


def _pairs(loader, prefix: str, mapping, where, sections) -> Iterator[tuple[int, str, Setting | None]]:
    """(line, dotted key, setting) of a mapping node in order; the setting of a section itself is None."""
    for key_node, value_node in mapping.value:
        key = prefix + (key_node.value if isinstance(key_node, yaml.ScalarNode) else _kind(key_node))
        line = key_node.start_mark.line + 1
        if key in sections and isinstance(value_node, yaml.MappingNode):
            yield line, key, None
            yield from _pairs(loader, f"{key}.", value_node, where, sections)
        else:
            value = loader.construct_object(value_node, deep=True)
            yield line, key, None if key in sections and value is None else Setting(value, where(line))


def _unreadable(problem: str) -> Reading:
    return Reading(problems=(problem,), unreadable=True)


def _cannot_open(source: str, error: Exception, recipes: Recipes) -> str:
    if isinstance(error, IsADirectoryError):
        return f"{source} is a directory; give a YAML file or a recipe: {', '.join(recipes.names())}"
    if isinstance(error, FileNotFoundError):
        return f"no file and no recipe {source!r}; {recipes.help(source)}"
    return f"cannot read {source!r}: {getattr(error, 'strerror', None) or error}"


def _reason(error: Exception) -> str:
    parts = [getattr(error, "context", None), getattr(error, "problem", None) or getattr(error, "reason", None)]
    return " ".join(" ".join(filter(None, parts)).split()) or str(error).split("\n")[0]


def _kind(node) -> str:
    return {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}.get(type(node), f"the text {node.value!r}"[:80])
