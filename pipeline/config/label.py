"""ANYWHERE. The section that says what is to be predicted: one label, several of one type, and the rows' weights."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.section import Section, check_order


def _one_or_several(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class LabelConfig(Section):
    """The column to predict, or several columns of one type; what is set here holds for each of them."""

    column: Annotated[str | list[str], BeforeValidator(_one_or_several, json_schema_input_type=str | list[str])]
    """One name, or a list of names: a model then predicts all of them at once."""
    type: Literal["binary", "multiclass", "regression"] = "binary"
    """0 and 1, one of several classes, or a number."""
    classes: list[str] | None = Field(default=None, min_length=2)
    """Names of a multiclass label's classes in the order of their ids; by default those of the data, sorted."""
    max_classes: int = Field(default=1000, ge=2)
    """More classes in the data than this are an error."""
    scale: Literal["none", "standard"] = "none"
    """Of a regression label; predictions come in the original unit."""
    min: float | None = None
    """See `max`."""
    max: float | None = None
    """Bounds of a regression label; rows beyond are rejected."""
    weight: str | None = None
    """A column with the weight of each row in loss and metrics: a number of 0 or more. Statistics of features, counts
    of classes and `training.class_weights: balanced` are of rows, whatever they weigh."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns, however many there are."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, values: Any) -> Any:
        if isinstance(values, dict) and "columns" in values:
            raise ValueError("columns is unknown; expected label.column, which is one name or a list of names")
        return values

    @model_validator(mode="after")
    def _several_are_plain(self) -> LabelConfig:
        if not self.columns:
            raise ValueError("column is empty; expected names; leave the section out for a dataset without label")
        if len(self.columns) == 1:
            return self
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise ValueError(f"column names {', '.join(twice)} twice; expected each label once")
        if odd := [name for name in self.columns if not re.fullmatch(r"\w+", name)]:
            raise ValueError(
                f"column names {', '.join(map(repr, odd))}; expected letters, digits and underscores, since metrics "
                "and predictions of several labels are named after them; give the column an alias in the query"
            )
        if self.type == "multiclass" or self.classes is not None:
            setting = "type is multiclass" if self.type == "multiclass" else "classes are set"
            raise ValueError(
                f"{setting} for {len(self.columns)} columns; expected binary or regression labels; "
                "train a model for each multiclass label"
            )
        return self

    @model_validator(mode="after")
    def _weight_is_no_label(self) -> LabelConfig:
        if self.weight is not None and self.weight in self.columns:
            raise ValueError(f"weight is the label {self.weight}; expected another column, with the weight of each row")
        return self

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> LabelConfig:
        if self.type != "multiclass" and self.classes is not None:
            raise ValueError(f"classes are set but type is {self.type}; expected multiclass")
        if self.type != "regression" and (self.scale != "none" or self.min is not None or self.max is not None):
            raise ValueError(f"scale, min or max is set but type is {self.type}; expected regression")
        check_order(self.min, self.max)
        return self
