"""The reference of the configuration files against the settings and the files that are shipped."""

import re
from typing import Literal

import pydantic
import pytest
import yaml
from conftest import CHECKOUT

from balrogutils.settings.reference import FILES, _tables, reference

SHIPPED = {
    "The run": ["etc/pipeline.yaml"],
    "MEDS files": ["desmeds-config/meds-y3v02.yaml"],
    "SOF": ["sof-config/run-y3v02-sof.yaml"],
    "MOF": ["mof-config/run-y3v02-mof.yaml"],
    "Metacal": ["shr-config/run-all-mcal.yaml"],
    "BFD": ["bfd-config/run-y3v02-bfd.yaml"],
}


def test_the_reference_is_that_of_these_settings():
    """When it is not: python -m balrogutils.settings.reference docs/configuration.md"""
    assert (CHECKOUT / "docs" / "configuration.md").read_text() == reference()


def section(title):
    parts = reference().split("\n## ")
    (found,) = [part for part in parts if part.startswith(f"{title}\n")]
    return found


@pytest.mark.parametrize("title", SHIPPED)
def test_every_key_of_a_shipped_file_is_in_it(title):
    text = section(title)
    for file in SHIPPED[title]:
        keys = yaml.safe_load((CHECKOUT / file).read_text())
        assert [key for key in keys if f"| `{key}` |" not in text] == []


def test_every_file_has_a_section_and_every_key_a_line():
    for title, _, model in FILES:
        text = section(title)
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in text, (title, name)


class Inner(pydantic.BaseModel):
    depth: float = pydantic.Field(default=1.0, gt=0)


class Outer(pydantic.BaseModel):
    """Settings.

    Attributes
    ----------
    needed : str
        A word | of two lines,
        which must be there; never None.
    one, other : int or None
        Both alike.

    Notes
    -----
    kind : no key
        Nothing.
    """

    needed: str
    one: int | None = None
    other: int | None = pydantic.Field(default=3, ge=1, le=9)
    kind: Literal["a", "b"] = "a"
    many: tuple[float, ...] = (1.0, 2.0)
    pair: tuple[int, int] = (1, 2)
    switch: bool = False
    inner: Inner = Inner()
    again: Inner = Inner()


LINES = [
    "| `needed` | word | must be given | A word \\| of two lines, which must be there; never null. |",
    "| `one` | whole number, or null | null | Both alike. |",
    "| `other` | whole number, or null; at least 1; at most 9 | `3` | Both alike. |",
    "| `kind` | `a` or `b` | `a` |  |",
    "| `many` | list: number | `[1.0, 2.0]` |  |",
    "| `pair` | list: 2 of whole number | `[1, 2]` |  |",
    "| `switch` | true or false | `false` |  |",
    "| `inner` | group of keys | as below |  |",
    "### Title: `inner`",
    "| `depth` | number; above 0 | `1.0` |  |",
    "As `inner` of Title.",
]


def test_what_is_said_of_a_key():
    text = "\n".join(_tables(Outer, "", "Title", {}))
    assert [line for line in LINES if line not in text.splitlines()] == []
    assert "Nothing." not in text


def test_messages_of_the_faq_are_those_of_the_program():
    """They are quoted literally, and the table of bad input is what the tests saw."""
    known = (CHECKOUT / "docs" / "bad-input.md").read_text()
    messages = re.findall(r"^## `(.+)`$", (CHECKOUT / "docs" / "faq.md").read_text(), re.MULTILINE)
    assert len(messages) >= 10
    assert [message for message in messages if message not in known] == []
