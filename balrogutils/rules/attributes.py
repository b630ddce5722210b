"""The objects a rules file is handed: rules to assign, sampled to refer to, the truth catalogue to add columns to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from balrogutils.errors import did_you_mean
from balrogutils.rules.codes import bad_rule
from balrogutils.rules.language import Column, Constant, Reference, References, Rule, Where, as_rule, where_written

__all__ = ["COMPONENT", "OBJECT", "Assigned", "Extra", "Rules", "Sampled", "TruthCat", "initialize_sersic"]

OBJECT = ("x", "y", "g1", "g2", "magnification")
"""Parameters of a whole object."""

COMPONENT = ("sersicindex", "halflightradius", "magnitude", "axisratio", "beta")
"""Parameters of each of its components."""

_HIDDEN = ("ngal", "galkeys", "compkeys")


class Assigned(NamedTuple):
    """A rule and where it was written."""

    rule: Rule
    where: Where | None


def _give(target: str, value: Any, count: int) -> Assigned | None:
    """Return an assigned rule; None for None, which takes a rule back."""
    if value is None:
        return None
    rule = as_rule(value, count)
    if rule is None or (isinstance(rule, Constant) and isinstance(rule.value, str)):
        what = f"{type(value).__name__} of length {len(value)}" if hasattr(value, "__len__") else repr(value)
        text = f"the rule given for {target} is not understood: {what}"
        remedy = f"give a number, an array of ngal = {count} numbers, sampled.NAME, Catalog(...) or Function(...)"
        raise bad_rule(303, text, remedy)
    return Assigned(rule, where_written())


class _Components:
    """The rules of one parameter, by component."""

    def __init__(self, name: str, profiles: int, count: int) -> None:
        self.__dict__.update(_name=name, _count=count, _given=[None] * profiles)

    def __len__(self) -> int:
        return len(self._given)

    def __iter__(self) -> Iterator[Assigned | None]:
        return iter(self._given)

    def _at(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            text = f"rules.{self._name}[{index}] is beyond the {len(self)} components"
            raise bad_rule(304, text, "say InitializeSersic(rules, sampled, nProfiles=...) first")
        return index % len(self)

    def __getitem__(self, index: int) -> Assigned | None:
        return self._given[self._at(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        at = self._at(index)
        self._given[at] = _give(f"component {at} of rules.{self._name}", value, self._count)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise bad_rule(305, f"rules.{self._name} has no attribute {name}", f"index it: rules.{self._name}[0] = ...")

    def __getattr__(self, name: str) -> Any:
        raise bad_rule(305, f"rules.{self._name} has no attribute {name}", f"index it: rules.{self._name}[0]")


class Rules:
    """How objects are sampled; every attribute takes a rule.

    Parameters
    ----------
    count : int
        Number of objects.
    objects, components : sequence of str
        Names of the parameters of an object, and of its components.
    word : str
        What the user calls it.
    """

    def __init__(
        self, count: int, objects: Sequence[str] = OBJECT, components: Sequence[str] = COMPONENT, word: str = "rules"
    ) -> None:
        own: dict[str, Any] = {"_count": count, "_objects": tuple(objects), "_names": tuple(components), "_word": word}
        self.__dict__.update(own, _given=dict.fromkeys(objects), _profiles=1)
        self.reset(1)

    def reset(self, profiles: int) -> None:
        """Give every object so many components, and forget their rules."""
        found = {name: _Components(name, profiles, self._count) for name in self._names}
        self.__dict__.update(_profiles=profiles, _components=found)

    def assigned(self) -> dict[Reference, Assigned | None]:
        """Return what every parameter was given, None where nothing was."""
        found = {Reference(name): self._given[name] for name in self._objects}
        for name in self._names:
            found |= {Reference(name, index): one for index, one in enumerate(self._components[name])}
        return found

    def __getitem__(self, index: object) -> NoReturn:
        raise bad_rule(302, f"{self._word} itself has no index", f"index a parameter: {self._word}.magnitude[0]")

    def __setitem__(self, index: object, value: object) -> NoReturn:
        raise bad_rule(302, f"{self._word} itself has no index", f"index a parameter: {self._word}.magnitude[0] = ...")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._objects:
            return self._given[name]
        if name in self._names:
            return self._components[name]
        raise self._unknown(name)

    def _unknown(self, name: str) -> Exception:
        known = (*self._objects, *self._names)
        return bad_rule(301, f"{self._word} has no attribute {name}: {did_you_mean(name, known)}", "correct its name")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HIDDEN:
            raise bad_rule(-1, f"{self._word}.{name} cannot be changed", "use --ngal")
        if name == "nProfiles":
            raise bad_rule(-2, f"{self._word}.nProfiles cannot be changed", "use InitializeSersic")
        if name in self._objects:
            self._given[name] = _give(f"{self._word}.{name}", value, self._count)
        elif name in self._names:
            target = self._components[name]
            for index, one in enumerate(self._by_component(name, value)):
                target[index] = one
        else:
            raise self._unknown(name)

    def _by_component(self, name: str, value: Any) -> Sequence[Any]:
        """Return one value a component."""
        if isinstance(value, References) and len(value) == self._profiles:
            return [value[index] for index in range(self._profiles)]
        sized = not isinstance(value, (Rule, str)) and hasattr(value, "__len__")
        if self._profiles == 1:
            # A list of one is that of the one component, unless it is the array of the one object.
            return value if sized and len(value) == 1 else [value]
        if sized and len(value) == self._profiles:
            return value
        text = f"rules.{name} needs a list of {self._profiles}, one for each component"
        raise bad_rule(306, text, f"write rules.{name} = [...], or rules.{name}[0] = ...")


class Sampled:
    """What parameters are sampled to, to be used in rules; the parameters as those of `Rules`."""

    def __init__(self, objects: Sequence[str] = OBJECT, components: Sequence[str] = COMPONENT) -> None:
        self.__dict__.update(_objects=tuple(objects), _names=tuple(components), _profiles=1)

    def reset(self, profiles: int) -> None:
        """Give every object so many components."""
        self.__dict__["_profiles"] = profiles

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._objects:
            return Reference(name)
        if name in self._names:
            return References(name, self._profiles)
        text = f"sampled has no attribute {name}: {did_you_mean(name, (*self._objects, *self._names))}"
        raise bad_rule(401, text, "correct its name")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise bad_rule(403, f"sampled.{name} cannot be assigned", f"assign rules.{name}")

    def __getitem__(self, index: object) -> NoReturn:
        raise bad_rule(402, "sampled itself has no index", "index a parameter: sampled.magnitude[0]")

    def __setitem__(self, index: object, value: object) -> NoReturn:
        raise bad_rule(402, "sampled itself has no index", "assign rules instead")


class Extra(NamedTuple):
    """A column that the user adds to the truth catalogue; what is None comes from the FITS column it is drawn from."""

    assigned: Assigned
    name: str
    format: str | None
    unit: str | None


# What a FITS header holds, and what the truth catalogue has by itself.
_LABEL = re.compile(r"[!-~]([ -~]{0,48}[!-~])?")
_PARTS = ("flux", *(name for name in COMPONENT if name != "magnitude"))
_NATIVE = re.compile(rf"balrog_index|not_drawn|flux_noise(less|d)|{'|'.join(OBJECT)}|({'|'.join(_PARTS)})_\d+")


class TruthCat:
    """The user's own columns of the truth catalogue.

    Parameters
    ----------
    count : int
        Number of objects.
    """

    def __init__(self, count: int) -> None:
        extras: list[Extra] = []
        self.__dict__.update(_count=count, _extras=extras)

    @property
    def extras(self) -> list[Extra]:
        """The columns, in the order they were added."""
        return list(self.__dict__["_extras"])

    def AddColumn(
        self, rule: Any = None, name: str | None = None, fmt: str | None = None, unit: str | None = None
    ) -> None:
        """Add a column.

        Parameters
        ----------
        rule : object
            A rule as a parameter takes it; also a text, or texts.
        name, fmt, unit : str, optional
            Of the FITS column; those of the column of a Catalog when not given.

        Raises
        ------
        ConfigError
            When the rule is none, or there is no name that can be.
        """
        if isinstance(rule, References) and len(rule) != 1:
            raise bad_rule(705, f"column {name} would have several dimensions", f"index it: {rule}[0]")
        count = self.__dict__["_count"]
        found = as_rule(rule, count) if rule is not None else None
        if found is None and hasattr(rule, "__len__"):
            text = f"column {name} has {len(rule)} values for {count} objects"
            raise bad_rule(701, text, "give one value an object")
        if found is None:
            raise bad_rule(702, f"what column {name} is to hold is not understood", "give it as a rule is given")
        label = name or (found.col if isinstance(found, Column) else None)
        if label is None:
            raise bad_rule(703, "a column that is not drawn from a catalogue needs a name", "write name='...'")
        if not (isinstance(label, str) and _LABEL.fullmatch(label) and _LABEL.fullmatch(unit or "a")):
            text = f"a column cannot be called {label!r}" + (f" with the unit {unit!r}" if unit else "")
            raise bad_rule(703, text, "use up to 50 plain letters, digits and signs")
        taken = {one.name.lower() for one in self.extras}
        if label.lower() in taken or _NATIVE.fullmatch(label.lower()):
            raise bad_rule(703, f"there is a column {label} already", "give it another name")
        self.__dict__["_extras"].append(Extra(Assigned(found, where_written()), label, fmt, unit))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise bad_rule(706, f"TruthCat takes no attribute {name}", "use TruthCat.AddColumn(...)")


def initialize_sersic(rules: Rules, sampled: Sampled, *others: Any, nProfiles: int | None = None) -> None:
    """Give every object several components; their rules begin anew.

    Parameters
    ----------
    rules, sampled : Rules, Sampled
        As the user's function was handed them.
    *others
        The truth catalogue, which some files pass, and the number of components where it is not named.
    nProfiles : int
        Number of components.
    """
    numbers = [one for one in others if isinstance(one, int) and not isinstance(one, bool)]
    profiles = nProfiles if nProfiles is not None else numbers[0] if numbers else 1
    if not isinstance(profiles, int) or profiles < 1:
        raise bad_rule(306, f"nProfiles is {profiles!r}", "give a whole number from 1 on")
    rules.reset(profiles)
    sampled.reset(profiles)
