"""Strict YAML: duplicate keys refused, errors with the line, unknown keys with what was meant."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from balrogutils.errors import ConfigError, did_you_mean

__all__ = ["Strict", "load_yaml", "parse"]


class Strict(pydantic.BaseModel):
    """A frozen configuration object that refuses keys it does not know and numbers that are not finite."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


S = TypeVar("S", bound=Strict)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool, type(None))):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        line = key_node.start_mark.line + 1
        if key in seen:
            problem = f"the key {key!r} is given twice, in lines {seen[key]} and {line}"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen[key] = line
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 reads "on", "off", "yes", "no" as booleans; band "y" and keys such as "no" must stay words.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))


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
        raise ConfigError(f"a configuration file cannot be read: {error}", file=file) from error
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"YAML error{line}: {error.problem}", file=file, remedy="mend that line") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"YAML error: {error}", file=file) from error
    except (ValueError, RecursionError) as error:
        # PyYAML's own constructors give up like this, for example on a date such as 2020-99-99.
        raise ConfigError(f"a value cannot be read: {error}", file=file) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError("a configuration file must hold `key: value` lines", file=file)
    return data


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
        problems, keys = [], []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            keys.append(key)
            if item["type"] == "extra_forbidden":
                problems.append(
                    f"unknown key {key!r}: {did_you_mean(str(item['loc'][-1]), _known_keys(model, item['loc']))}"
                )
            elif item["type"] == "missing":
                problems.append(f"the key {key!r} is missing")
            else:
                given = f", not {item['input']!r}" if not isinstance(item["input"], dict) else ""
                told = f"{item['msg'].removeprefix('Value error, ')}{given}"
                # What concerns several keys together has no key of its own.
                problems.append(f"{key}: {told}" if key else told)
        named = ", ".join(key for key in keys if key) or None
        raise ConfigError("; ".join(problems), file=file, key=named, remedy="mend the key") from error
