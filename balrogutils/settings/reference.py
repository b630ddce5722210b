"""Reference of every configuration file, from the settings themselves.

``python -m balrogutils.settings.reference FILE`` writes it.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from balrogutils.products import writing_text
from balrogutils.settings.bfd import Bfd
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.desmeds import DesMeds
from balrogutils.settings.injection import Image
from balrogutils.settings.mcal import Mcal
from balrogutils.settings.mof import Mof
from balrogutils.settings.pipeline import Pipeline
from balrogutils.settings.sof import Sof

__all__ = ["FILES", "reference"]

FILES: tuple[tuple[str, str, type[pydantic.BaseModel]], ...] = (
    ("The run", "`etc/pipeline.yaml`, and `--config key=value` or `--set key=value`", Pipeline),
    ("Campaigns", "`etc/campaigns.yaml`, under `campaigns: NAME:`", Campaign),
    ("MEDS files", "`desmeds-config/`, key `desmeds_config`", DesMeds),
    (
        "Injection",
        "`inputs/`, key `galsim_config`, section `image`; the rest is GalSim's ([injection.md](injection.md))",
        Image,
    ),
    ("SOF", "`sof-config/`, key `sof_config`", Sof),
    ("MOF", "`mof-config/`, key `mof_config`", Mof),
    ("Metacal", "`shr-config/`, key `shr_config`", Mcal),
    ("BFD", "`bfd-config/`, key `bfd_config`", Bfd),
)
"""Title, where the keys stand, and the settings, a configuration file each."""

_HEAD = """\
# Configuration

Every key of every configuration file, with what it may be and what it is when it is left out. A key that is not listed
is an error. What the keys of MEDS files and fits mean is in the comments of the shipped files and in
[measurement.md](measurement.md).

This file is written from the settings by `python -m balrogutils.settings.reference docs/configuration.md`, and a test
compares them.
"""
_LIMITS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "at least {} entries",
}
_PYTHON = {"None": "null", "True": "true", "False": "false"}
_WORDS = {"str": "word", "int": "whole number", "float": "number", "bool": "true or false", "NoneType": "null"}


def reference() -> str:
    """Return the reference of all files as Markdown: a section a file, a table a group of keys."""
    parts = [_HEAD]
    told: dict[type[pydantic.BaseModel], str] = {}
    for title, where, model in FILES:
        parts.append(f"## {title}\n\n{where}.\n")
        parts += _tables(model, "", title, told)
    return "\n".join(parts)


def _tables(
    model: type[pydantic.BaseModel], prefix: str, title: str, told: dict[type[pydantic.BaseModel], str]
) -> Iterator[str]:
    """Yield the table of a model, then those of the models among its keys; a group told before is named."""
    if prefix:
        yield f"### {title}: `{prefix}`\n"
    if model in told:
        yield f"As {told[model]}.\n"
        return
    told[model] = f"`{prefix}` of {title}" if prefix else title
    meanings = _meanings(model)
    lines = ["| key | is | left out | |", "|---|---|---|---|"]
    groups: list[tuple[str, type[pydantic.BaseModel]]] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = [one for one in _inside(field.annotation) if _is_model(one)]
        groups += [(f"{prefix}.{key}" if prefix else key, one) for one in inner]
        cells = (f"`{key}`", _kind(field), _default(field), meanings.get(name, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    yield "\n".join(lines) + "\n"
    for where, one in groups:
        yield from _tables(one, where, title, told)


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, pydantic.BaseModel)


def _inside(kind: Any) -> list[Any]:
    """Return the plain types that an annotation is made of."""
    if get_origin(kind) is Literal or not get_args(kind):
        return [kind]
    return [one for part in get_args(kind) for one in _inside(part)]


def _called(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(_value(one) for one in parts)
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_called(one) for one in parts))
    if origin in (tuple, list):
        inner = list(dict.fromkeys(_called(one) for one in parts if one is not Ellipsis))
        many = "" if Ellipsis in parts or origin is list else f"{len(parts)} of "
        return f"list: {many}{', '.join(inner)}"
    if origin is dict:
        return f"mapping of {_called(parts[0])} to {_called(parts[1])}"
    if parts:
        # Annotated: what it is comes first, and how it is checked after it.
        return _called(parts[0])
    if _is_model(kind):
        return "group of keys"
    name = getattr(kind, "__name__", str(kind))
    return "anything" if kind is Any else _WORDS.get(name, name)


def _kind(field: FieldInfo) -> str:
    limits = [
        text.format(getattr(one, name))
        for one in field.metadata
        for name, text in _LIMITS.items()
        if getattr(one, name, None) is not None
    ]
    return "; ".join([_called(field.annotation), *limits])


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, list)):
        return "`[" + ", ".join(str(one) for one in value) + "]`"
    return f"`{value}`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or isinstance(value, pydantic.BaseModel):
        return "as below"
    return "empty" if value in ("", {}, ()) else _value(value)


def _meanings(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a model and of those it is made from say of each key, on one line."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        section = re.search(
            r"(?:Attributes|Parameters)\n-+\n(.*?)(?:\n\n\w+\n-+\n|\Z)", inspect.getdoc(one) or "", re.DOTALL
        )
        for names, text in re.findall(
            r"^([\w, ]+?) *:[^\n]*\n((?:    .*\n?|\n(?=    ))+)", section[1] if section else "", re.MULTILINE
        ):
            meaning = " ".join(text.split()).replace("``", "`")
            for word, plain in _PYTHON.items():
                meaning = re.sub(rf"\b{word}\b", plain, meaning)
            found.update(dict.fromkeys((name.strip() for name in names.split(",")), meaning))
    return found


if __name__ == "__main__":
    writing_text(Path(sys.argv[1]).absolute(), reference())
