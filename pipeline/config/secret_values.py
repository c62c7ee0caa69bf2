"""ANYWHERE. Passwords and the like: a configuration names the variable that holds one, and never the secret itself.

``${env:NAME}`` stays as it is wherever a configuration is kept, shown or hashed; `from_environment` puts the value in,
where it is used and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import ConfigError, SecurityError

_VARIABLE = re.compile(r"\$\{env:(\w+)\}")
_SECRET_KEY = re.compile(
    r"(?i:password|passwd|passphrase|secret|token|credentials?$)|(?i:(^|[._-])(key|pwd)($|[._-]))|[a-z]Key$"
)
_NO_SECRET_KEY = re.compile(r"(?i)(file|path|provider|enabled)$")
_SECRET_IN_URL = re.compile(
    r"(?i)://[^/@\s:]*:[^/@\s]+@"  # user:password@host
    r"|jdbc:oracle:\w+:[^/@\s]+/[^/@\s]+@"
    r"|[?&;](?:[\w.-]*(?:password|passwd|secret|token|credential)[\w.-]*|pwd|sig|(?:\w*_)?key)=[^&;\s]"
)

# Whose keys are of others, so that any of them may be for a secret.
_FOREIGN = (("source", "inputs"), ("tracking",), ("cluster", "spark"))
# SQL, patterns and values of the data: no places for a URL, and Spark has variables of its own in SQL.
_TEXTS = (("source", "query"), ("source", "where"), ("clean",), ("features",), ("label",))
# What the JVM has to know when it starts, which stands on its command line.
_AT_START = re.compile(r"spark\.(driver|jars|submit|master|pyspark)\b")

_Place = tuple[str, ...]


def refuse_secrets(values: Mapping[str, Any]) -> None:
    """Refuse a configuration that holds secrets: it is copied into run folders, reports and MLflow.

    Args:
        values: plain values by section, as they were written.

    Raises:
        SecurityError: the places of all of them, and never what stands there.
    """
    if offences := [_refusal(place) for place, text in _texts(values) if _is_secret(place, _VARIABLE.sub("", text))]:
        raise SecurityError(*offences)


def misplaced_variables(values: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each ``${env:NAME}`` that nobody would replace."""
    for place, text in _texts(values):
        if not _VARIABLE.search(text) or _below(place, _TEXTS):
            continue
        if not _takes_variables(place):
            yield (
                f"{'.'.join(place)} is {text}; expected variables only in source.inputs.<name>.options, tracking.uri "
                "and cluster.spark; write the value, or give it by --set"
            )
        elif place[0] == "cluster" and _AT_START.match(".".join(place[2:])):
            yield (
                f"{'.'.join(place)} is {text}; expected no variable, since the value stands on the command line of "
                "Spark's Java process; write it out"
            )


def unset_variables(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each variable that is named but not set."""
    return [
        f"{'.'.join(place)} names ${{env:{name}}}, which is not set; expected an environment variable; export it"
        for place, text in _texts(values)
        if _takes_variables(place)
        for name in _VARIABLE.findall(text)
        if name not in os.environ
    ]


def has_variable(text: str) -> bool:
    """Whether it names an environment variable."""
    return _VARIABLE.search(text) is not None


def from_environment(text: str, where: str) -> str:
    """The text with the values of the variables that it names; for use, never to be kept or shown.

    Args:
        text: as configured.
        where: what it is in the configuration, for the error.

    Raises:
        ConfigError: a variable is not set.
    """
    if unset := [name for name in _VARIABLE.findall(text) if name not in os.environ]:
        raise ConfigError(
            *(
                f"{where} names ${{env:{name}}}, which is not set; expected an environment variable; export it"
                for name in unset
            )
        )
    return _VARIABLE.sub(lambda found: os.environ[found[1]], text)


def _texts(value: Any, place: _Place = ()) -> Iterator[tuple[_Place, str]]:
    """Every single value, and where it stands."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*place, str(number)))
    elif value is not None and not isinstance(value, bool):
        yield place, str(value)


def _is_secret(place: _Place, text: str) -> bool:
    if not text or _below(place, _TEXTS):
        return False
    return _has_secret_key(place, text) or _SECRET_IN_URL.search(text) is not None


def _has_secret_key(place: _Place, text: str) -> bool:
    if not _below(place, _FOREIGN) or text.lower() in ("true", "false"):
        return False
    key = ".".join(place[2:]) if place[0] == "cluster" else place[-1]
    return _SECRET_KEY.search(key) is not None and _NO_SECRET_KEY.search(key) is None


def _takes_variables(place: _Place) -> bool:
    of_input = place[:2] == ("source", "inputs") and place[3:4] == ("options",)
    return of_input or place == ("tracking", "uri") or place[:2] == ("cluster", "spark")


def _below(place: _Place, sections: tuple[_Place, ...]) -> bool:
    return any(place[: len(section)] == section for section in sections)


def _refusal(place: _Place) -> str:
    instead = (
        "write ${env:NAME} in its place, and set that variable"
        if _takes_variables(place)
        else "give it to the storage by its own environment variables or configuration file"
    )
    return (
        f"{'.'.join(place)} holds a secret; expected none in a configuration, which is copied into run folders, "
        f"reports and MLflow; {instead}"
    )
