"""ANYWHERE. How raw texts become names of categories."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from pipeline.config.features import NormalizeConfig
from pipeline.features.kinds import Raw
from pipeline.features.lists import text_lists
from pipeline.features.texts import Texts, coded


@dataclass(frozen=True)
class Text:
    """How a raw text becomes a category's name; done once per distinct value.

    Attributes:
        mapping: pairs of a text, after trim, unicode form and case, and what it stands for.
        secret: names are replaced by salted digests, so that no state shows them.
    """

    trim: bool = False
    unicode: str | None = None
    case: str | None = None
    mapping: tuple[tuple[str, str], ...] = ()
    secret: str | None = None

    @classmethod
    def of(cls, config: NormalizeConfig | None, secret: str | None = None) -> Text:
        """From the configuration."""
        if config is None:
            return cls(secret=secret)
        return cls(config.trim, config.unicode, config.case, tuple(sorted(config.mapping.items())), secret)

    def __call__(self, texts: Texts) -> Texts:
        """The names of the texts."""
        return texts if self == Text() else texts.renamed(self._name)

    def _name(self, value: str) -> str:
        if self.unicode is not None:
            value = unicodedata.normalize(self.unicode, value)  # type: ignore[arg-type]
        if self.trim:
            value = value.strip()
        if self.case is not None:
            value = value.casefold() if self.case == "lower" else value.upper()
        value = dict(self.mapping).get(value, value)
        return digest_of(self.secret + value).hex()[:32] if self.secret is not None else value


def digest_of(text: str) -> bytes:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Names:
    """The names of the categories in a raw column."""

    column: str
    text: Text = Text()

    def __call__(self, raw: Raw) -> Texts:
        return self.text(coded(raw[self.column]))


@dataclass(frozen=True)
class Items:
    """The names of all categories in a raw column of several for each row, one after the other."""

    column: str
    text: Text = Text()

    def __call__(self, raw: Raw) -> Texts:
        return self.text(coded(text_lists(raw[self.column]).items))
