"""DRIVER. Rules as SQL conditions with reasons; those that repair a value are in `pipeline.features.repair`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pyspark.sql import Column, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.data import RuleConfig
from pipeline.dataset import Accounting
from pipeline.errors import DataError
from pipeline.features import Kind
from pipeline.features.repair import Repair
from pipeline.preparation.quoting import column

Checks = Iterable[tuple[Column, str]]
_USE_CONDITION = "expected a column of numbers; use a condition, in SQL"


def repairs_of(config: PipelineConfig) -> tuple[Repair, ...]:
    """The rules that change values instead of rejecting rows."""
    return tuple(Repair.of(rule) for rule in config.clean.rules if rule.action != "reject")


def unfit_rule(rule: RuleConfig, kind: Kind | None, type_: T.DataType) -> Iterable[str]:
    """What a rule says that would never be applied, or could not.

    Args:
        rule: the rule.
        kind: as what features read its column, if one does.
        type_: the column's type.
    """
    bounds = [name for name in ("min", "max") if getattr(rule, name) is not None]
    lengths = [name for name in ("min_length", "max_length") if getattr(rule, name) is not None]
    if rule.action == "reject":
        if bounds and not isinstance(type_, (T.NumericType, T.StringType, T.BooleanType)):
            yield f"has {bounds[0]} for column {rule.column} of type {type_.simpleString()}; {_USE_CONDITION}"
        return
    if kind not in ("number", "boolean", "string"):
        yield (
            f"changes column {rule.column}, of which no feature reads numbers or texts; "
            "expected a column of such a feature, no times and no lists; use action: reject"
        )
    elif kind == "string" and bounds:
        yield f"has {bounds[0]} for {rule.column}, which features read as texts; expected allowed or lengths"
    elif kind != "string" and lengths:
        yield f"has {lengths[0]} for {rule.column}, which features read as numbers; expected min, max or allowed"
    elif kind != "string":
        given = [*(rule.allowed or ()), *([] if rule.default is None else [rule.default])]
        for value in given:
            if not _is_number(value):
                yield f"has {value!r} for {rule.column}, which features read as numbers; expected numbers"


def _is_number(value: object) -> bool:
    try:
        float(str(value)) if not isinstance(value, bool) else value
    except ValueError:
        return False
    return True


def rule_checks(config: PipelineConfig, types: Mapping[str, T.DataType], values: Mapping[str, Column]) -> Checks:
    """The violations of all rejecting rules; null and NaN violate ``not_null`` only.

    Args:
        config: has the rules.
        types: of columns as features read them.
        values: the same columns; patterns and lengths are of the texts that the query gives.
    """
    for rule in config.clean.rules:
        if rule.action == "reject":
            yield from _checks(rule, values[rule.column], types[rule.column], config.source.id)


def reasons_of(rule: RuleConfig) -> dict[str, str]:
    """For each condition of a rule the reason that it gives."""
    name = rule.column
    texts = {
        "not_null": f"{name} is null",
        "min": f"{name} is below {rule.min:g}" if rule.min is not None else "",
        "max": f"{name} is above {rule.max:g}" if rule.max is not None else "",
        "allowed": f"{name} is not an allowed value",
        "pattern": f"{name} does not match {rule.pattern}",
        "min_length": f"{name} is shorter than {rule.min_length}",
        "max_length": f"{name} is longer than {rule.max_length}",
        "unique": f"{name} is not unique",
        "condition": f"{name} fails {rule.condition}",
    }
    return {check: text for check, text in texts.items() if _is_set(getattr(rule, check))}


def _is_set(value: object) -> bool:
    return value is not None and value is not False


def _checks(rule: RuleConfig, value: Column, type_: T.DataType, ids: Sequence[str]) -> Checks:
    is_fraction = isinstance(type_, (T.FloatType, T.DoubleType))
    present = value.isNotNull() & ~F.isnan(value) if is_fraction else value.isNotNull()
    text = column(rule.column).cast("string")
    # All rows of a value meet in one task; those without one need not, and may be many.
    same = Window.partitionBy(value, F.when(~present, F.xxhash64(*map(column, ids))) if ids else F.lit(None))
    conditions = {
        "not_null": lambda: ~present,
        "min": lambda: present & (value < F.lit(rule.min)),
        "max": lambda: present & (value > F.lit(rule.max)),
        "allowed": lambda: present & ~value.isin(rule.allowed),
        "pattern": lambda: present & ~text.rlike(rf"\A(?:{rule.pattern})\z"),
        "min_length": lambda: present & (F.length(text) < F.lit(rule.min_length)),
        "max_length": lambda: present & (F.length(text) > F.lit(rule.max_length)),
        "unique": lambda: present & (F.count(F.lit(1)).over(same) > 1),
        "condition": lambda: ~F.coalesce(F.expr(str(rule.condition)), F.lit(True)),
    }
    for check, reason in reasons_of(rule).items():
        yield conditions[check](), reason


def check_rule_limits(accounting: Accounting, config: PipelineConfig) -> None:
    """Refuse data of which one rule rejected too much.

    Raises:
        DataError: every such rule with fraction and limit.
    """
    offences = []
    for rule in config.clean.rules:
        for reason in reasons_of(rule).values():
            fraction = accounting.reasons.get(reason, 0) / max(1, accounting.rows_in)
            if rule.max_fraction is not None and fraction > rule.max_fraction:
                offences.append(
                    f"{reason}: {fraction:.2%} of the rows are rejected; expected at most the rule's max_fraction "
                    f"{rule.max_fraction:g}; mend the data or the rule"
                )
    if offences:
        raise DataError(*offences)
