"""ANYWHERE. Everything that is wrong with a configuration, at once and in the words of who wrote it."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

S = TypeVar("S", bound=BaseModel)
Place = tuple[str, ...]

_FORMS = {
    r"^[\w.]+:\w+$": "package.module:function",
    r"^(first|last) by \S.*$": "`first by <column>` or `last by <column>`",
    "^[0-9a-f]{64}$": "the 64 hexadecimal digits of a content id",
}
_EXPECTED: dict[str, str] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "model_attributes_type": "a section with keys",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
}


class Validation(Generic[S]):
    """Values validated as far as they go.

    What is wrong is taken out, and the rest validated again: checks over several keys, which come after those of
    single keys, then still find what is wrong with the others.

    Attributes:
        model: of what is right; None if even that makes none.
        offences: one sentence per thing that is wrong.
    """

    def __init__(
        self,
        kind: type[S],
        values: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        *,
        where: Place = (),
        stand_ins: Mapping[str, Any] | None = None,
    ) -> None:
        """Validate.

        Args:
            kind: of the configuration, or of one section.
            values: plain values.
            context: for validators.
            where: the section's place in the configuration.
            stand_ins: for keys that there must be, so that something is left when they are taken out.
        """
        self.offences: list[str] = []
        self.model: S | None = None
        self._where = where
        self._removed: list[Place] = []
        rest = _copy(dict(values))
        while self.model is None:
            try:
                self.model = kind.model_validate(rest, context=dict(context or {}))
            except ValidationError as error:
                places = self._note(kind, error)
                if not self._take_out(rest, places, stand_ins or {}):
                    return

    def ask(self, check: Callable[[S], Iterable[str]]) -> None:
        """Add what a further check finds, unless it is about what was taken out."""
        if self.model is not None:
            taken = [re.compile(rf"\b{re.escape('.'.join(place))}\b") for place in self._removed]
            self.offences += [one for one in check(self.model) if not any(name.search(one) for name in taken)]

    def _note(self, kind: type[BaseModel], error: ValidationError) -> list[Place]:
        """Say what is wrong, unless it follows from what was taken out; where several types were possible, joined."""
        found: dict[str, str] = {}
        items = [(tuple(_written(item["loc"])), item) for item in error.errors()]
        places = [place for place, _ in items]
        said = {place for place, item in items if item["type"] == "value_error"}
        said |= {place[:depth] for place, _ in items for depth in range(len(place))}  # something within is wrong
        for place, item in items:
            another_type = place in said and item["type"] not in ("value_error", "extra_forbidden", "missing")
            if not another_type and not self._follows(place, item):
                offence = _offence(kind, self._where, place, item)
                start, _, expected = offence.partition("; expected ")
                found[start] = f"{found[start]} or {expected}" if start in found else offence
        self.offences += found.values()
        return places

    def _follows(self, place: Place, item: Any) -> bool:
        below = [removed for removed in self._removed if removed[: len(place)] == place]
        if item["type"] in ("missing", "too_short"):
            return bool(below)
        return any(re.search(rf"\b{re.escape(removed[-1])}\b", item["msg"]) for removed in below)

    def _take_out(self, rest: dict[str, Any], places: Iterable[Place], stand_ins: Mapping[str, Any]) -> bool:
        before = len(self._removed)
        for place in places:
            if (removed := _without(rest, place)) is not None:
                self._removed.append(removed)
            if place and place[0] in stand_ins and place[0] not in rest:
                rest[place[0]] = _copy(stand_ins[place[0]])
                self._removed.append(place[:1])
        return len(self._removed) > before


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _without(values: dict[str, Any], place: Place) -> Place | None:
    """Take out the innermost key of a section that a place leads to, and say which."""
    found: tuple[dict[str, Any], Any, Place] | None = None
    node: Any = values
    for depth, part in enumerate(place):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
            continue
        key = next((key for key in node if part in _names(key)), None) if isinstance(node, dict) else None
        if key is None:
            break
        found, node = (node, key, place[: depth + 1]), node[key]
    if found is None:
        return None
    del found[0][found[1]]
    return found[2]


def _names(key: Any) -> tuple[str, ...]:
    return (str(key), str(int(key))) if isinstance(key, bool) else (str(key),)  # pydantic says 1 for true


def _offence(kind: type[BaseModel], section: Place, place: Place, item: Any) -> str:
    where = ".".join((*section, *place)) or "the configuration"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where} is unknown; {_known_keys(kind, section, place)}"
    if item["type"] == "missing":
        return f"{where} is missing; expected a value; add it to the configuration"
    if item["type"] == "value_error":
        return f"{where}: {message}"
    if item["type"] == "union_tag_invalid":
        return f"{where}.type is {item['ctx']['tag']!r}; expected one of {item['ctx']['expected_tags']}"
    if item["type"] == "union_tag_not_found":
        return f"{where}.type is missing; expected the kind of feature"
    if item["type"] == "invalid_key" or item["loc"][-1:] == ("[key]",):
        return (
            f"{'.'.join((*section, *place[:-1])) or 'the configuration'} has the key {_shown(item['input'])}; "
            "expected text; quote it, since YAML takes yes, no, on and off for truth values"
        )
    return f"{where} is {_shown(item['input'])}; expected {_expected(item, message)}"


def _expected(item: Any, message: str) -> str:
    context = item.get("ctx", {})
    if item["type"] == "literal_error":
        return str(context["expected"]).replace("'", "")
    if item["type"] == "string_pattern_mismatch":
        return _FORMS.get(context["pattern"], f"text of the form {context['pattern']}")
    if item["type"] in _EXPECTED:
        return _EXPECTED[item["type"]].format(**context)
    return message.removeprefix("Input should be ")


def _shown(value: Any) -> str:
    """A value as its author knows it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping) and value:
        return "a section with keys"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


# Parts of pydantic's locations that name a branch of a union, not a key that the user wrote.
_BRANCH = re.compile(
    r"\[key\]$|literal\[|function-|constrained-|list\[|dict\[|tagged-union|nullable|ConstantCategory$|"
    r"(?:int|float|str|bool)$"
)


def _written(location: Iterable[Any]) -> list[str]:
    parts = [str(part) for part in location if not _BRANCH.match(str(part))]
    if len(parts) > 2 and parts[0] == "features":
        del parts[2]  # the feature's type, which pydantic adds to tell the branch
    return parts


def _known_keys(kind: type[BaseModel], section: Place, place: Place) -> str:
    """The nearest known key, or all of them, of the section that an unknown key was found in."""
    known = _keys_at(kind, place[:-1])
    near = difflib.get_close_matches(place[-1], known, n=1)
    if near:
        return f"did you mean {'.'.join((*section, *place[:-1], near[0]))}?"
    return f"expected one of {', '.join(known)}"


def _keys_at(kind: type[BaseModel], place: Place) -> list[str]:
    """The keys of the section at a place; names that the user chose, such as a feature's, lead no deeper."""
    models: list[type[BaseModel]] = [kind]
    for part in place:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return list(dict.fromkeys(field.alias or name for model in models for name, field in model.model_fields.items()))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
