"""What README.md and docs/ show: blocks with their languages, and the commands among them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md")))
LANGUAGES = {"sh", "python", "yaml", "ini", "text"}

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`((?:balrog|snakemake|make|python|pip|conda|apt-get|nc|chmod|Run\w+\.sh) [^`]+)`")


@dataclass(frozen=True)
class Command:
    """A command line of a document, without its comment."""

    document: str
    text: str
    in_block: bool

    @property
    def words(self):
        return shlex.split(self.text)


def blocks(file):
    """Return the language and text of every block of a document."""
    return _BLOCK.findall(file.read_text())


def prose(file):
    """Return a document without its blocks."""
    return _BLOCK.sub("", file.read_text())


def lines(text):
    """Return the command lines of a block: one that ends with a backslash goes on in the next."""
    whole = re.sub(r" *\\\n *", " ", text).splitlines()
    return [line for line in (re.sub(r"(^| +)# .*", "", line) for line in whole) if line]


def commands():
    """Return every command of the documents.

    The table of bad-input.md is not read: it is written from rows of which each is a test.
    """
    found = {}
    for file in DOCUMENTS:
        if file.name == "bad-input.md":
            continue
        shown = [line for language, text in blocks(file) if language == "sh" for line in lines(text)]
        told = [" ".join(span.split()) for span in _SPAN.findall(prose(file))]
        for texts, in_block in ((shown, True), (told, False)):
            for text in texts:
                found.setdefault((file.name, text), Command(file.name, text, in_block))
    return list(found.values())
