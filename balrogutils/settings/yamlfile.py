"""Strict YAML: duplicate keys refused, errors with the line, unknown keys with what was meant."""

from __future__ import annotations

import copy
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from balrogutils.errors import ConfigError, did_you_mean

__all__ = ["Strict", "load_yaml", "parse", "read_value"]


class Strict(pydantic.BaseModel):
    """A frozen configuration object that refuses keys it does not know and numbers that are not finite."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


S = TypeVar("S", bound=Strict)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""


class _Twice(Exception):
    """A key given twice, in two lines."""

    def __init__(self, key: str, lines: tuple[int, int]) -> None:
        super().__init__(key)
        self.key, self.lines = key, lines


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            # What comes from elsewhere, <<: *name, may be given again: that is what it is for.
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool, type(None))):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise _Twice(str(key), (seen[key], line))
        seen[key] = line
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    """Return a list; PyYAML's own way would let it hold itself."""
    return loader.construct_sequence(node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG, _sequence)
# YAML 1.1 reads "on", "off", "yes", "no" as booleans, 010 as 8 and 1:30 as 90; band "y" and keys such as "no" must stay
# words, and a realization 010 is to be refused.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
# How PyYAML's own constructors give up: on a date such as 2020-99-99, and on a tag that does not fit its value, such as
# !!bool 3, where what they say tells nothing.
_GIVEN_UP = (ValueError, RecursionError)
_TAGGED = (AttributeError, KeyError, TypeError)


class _Words(_Loader):
    """Loader of a command line's values: words and numbers stay text."""


_Words.yaml_implicit_resolvers = {}


@lru_cache(maxsize=64)
def _read(text: str) -> Any:
    # A run reads the same files for every tile.
    return yaml.load(text, Loader=_Loader)


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one YAML mapping.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict
        Its content; an empty file is an empty mapping.

    Raises
    ------
    ConfigError
        When the file is missing, is not valid YAML (with the line), gives a key twice, or is not a mapping.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError("a configuration file is not there", file=file, remedy="check the name") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        remedy = "make it a text file that you may read"
        raise ConfigError(f"a configuration file cannot be read: {reason}", file=file, remedy=remedy) from error
    try:
        data = copy.deepcopy(_read(text))
    except _Twice as error:
        raise ConfigError(
            f"the key {error.key!r} is given twice, in lines {error.lines[0]} and {error.lines[1]}",
            file=file,
            key=error.key,
            remedy="remove one of the two lines",
        ) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(
            f"YAML error in {_lines(error)}: {error.problem}", file=file, remedy="mend these lines"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"YAML error: {error}", file=file, remedy="make it a text file") from error
    except _GIVEN_UP as error:
        raise ConfigError(f"a value cannot be read: {error}", file=file, remedy="give another value") from error
    except _TAGGED as error:
        text, remedy = "a value is not what its tag (!!...) says", "remove the tag, or give another value"
        raise ConfigError(text, file=file, remedy=remedy) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            "a configuration file must hold `key: value` lines", file=file, remedy="see the one in the repository"
        )
    return data


def read_value(text: str) -> Any:
    """Return a value of the command line as Snakemake reads it behind ``--config``, so that both mean the same.

    Parameters
    ----------
    text : str
        For example ``3``, ``0,1``, ``[r, i]``.

    Returns
    -------
    int, float, str, list or dict
        A number when it is one; else what YAML makes of it, with words and numbers in lists left as text.

    Raises
    ------
    ValueError
        When it is no YAML.
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    try:
        return yaml.load(text, Loader=_Words)
    except (_Twice, yaml.YAMLError, *_GIVEN_UP, *_TAGGED) as error:
        raise ValueError(f"no YAML: {error}") from error


def _lines(error: yaml.MarkedYAMLError) -> str:
    """Return where a YAML error is: PyYAML notices a missing bracket only lines after the one that opens."""
    first, last = error.context_mark, error.problem_mark
    if last is None:
        return "the file"
    if first is None or first.line == last.line:
        return f"line {last.line + 1}"
    return f"line {last.line + 1}, in what begins in line {first.line + 1}"


def _line_of(file: str | os.PathLike[str] | None, location: tuple[int | str, ...]) -> str:
    """Return in which line of a file a key stands, as text after its name; empty where that cannot be told."""
    if file is None or not Path(file).is_file():
        return ""
    line, node = 0, yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=_Loader)
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            pairs = [(value, value) for value in node.value[part : part + 1]]
        else:
            pairs = []
        # What stands in no line: a key that is missing, the tag of a union.
        if pairs:
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
    return f" in line {line}" if line else ""


# What pydantic calls things, in the words of a configuration file: by the beginning of an error's type.
_PLAIN = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "bool": "must be true or false",
    "string_type": "must be a word",
    "tuple": "must be a list",
    "list": "must be a list",
    "model": "must be `key: value` lines",
    "dict": "must be `key: value` lines",
    "none": "must be left out, or null",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "union_tag_invalid": "its {discriminator} must be one of {expected_tags}",
}


_KIND = re.compile(r"[\[']|^(?:bool|int|float|str|none)$")


def _told(item: Any) -> str:
    """Return what is wrong with a value."""
    # Our own checks say themselves what was given.
    own = item["type"] == "value_error" or isinstance(item["input"], dict)
    given = "" if own else f", not {item['input']!r}"
    text = next((text for start, text in _PLAIN.items() if item["type"].startswith(start)), None)
    return f"{item['msg'] if text is None else text.format(**item.get('ctx', {}))}{given}"


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """Return every model an annotation mentions, however deep: ``dict[str, Campaign] | None`` gives Campaign."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _known_keys(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys accepted beside the one at `location`."""
    current = [model]
    for part in location[:-1]:
        fields = [kind.model_fields[str(part)] for kind in current if str(part) in kind.model_fields]
        # A part that is no field is the key of a mapping, the index of a list or the tag of a union: the models stay.
        current = [inner for field in fields for inner in _models_in(field.annotation)] if fields else current
    return [field.alias or name for kind in current for name, field in kind.model_fields.items()]


def parse(model: type[S], data: dict[str, Any], file: str | os.PathLike[str] | None) -> S:
    """Validate a mapping.

    Parameters
    ----------
    model : type
        A `Strict` model.
    data : dict
        What the file holds.
    file : path-like or None
        Named in errors.

    Returns
    -------
    Strict
        An instance of `model`.

    Raises
    ------
    ConfigError
        With every problem, each with its key; unknown keys offer the nearest known ones.
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        problems: list[str] = []
        keys: dict[str, None] = {}
        remedies: dict[str, None] = {}
        for item in error.errors():
            # Where a value can be of several kinds, pydantic puts the kind it tried into the place.
            place = tuple(part for part in item["loc"] if isinstance(part, int) or not _KIND.search(part))
            key, line = ".".join(str(part) for part in place), _line_of(file, place)
            keys[key] = None
            if item["type"] == "extra_forbidden":
                near = did_you_mean(str(place[-1]), _known_keys(model, place))
                problems.append(f"unknown key {key!r}{line}: {near}")
                remedies["correct its name, or remove it"] = None
            elif item["type"] == "missing":
                what = "an entry of" if isinstance(place[-1], int) else "the key"
                problems.append(f"{what} {key!r} is missing")
                remedies["add it"] = None
            else:
                # What concerns several keys together has no key of its own.
                problems.append(f"{key}{line}: {_told(item)}" if key else _told(item))
                remedies["give another value"] = None
        named = ", ".join(key for key in keys if key) or None
        raise ConfigError("; ".join(problems), file=file, key=named, remedy=" / ".join(remedies)) from error
