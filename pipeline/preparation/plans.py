"""DRIVER. What the user's SQL reads and computes, by its analysed plan: the inputs alone, and the same values again.

A dataset is known by its inputs and its configuration. What a query reads beside them may change unseen, and what it
computes by chance or by the clock is another dataset each time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from py4j.java_gateway import JavaObject, is_instance_of
from pyspark.sql import DataFrame, SparkSession

from pipeline.errors import ConfigError

_WITHOUT_DATA = ("OneRowRelation", "LocalRelation", "Range", "CTERelationRef", "EmptyRelation")
"""Relations that a query brings along or refers to within itself."""
_EXPRESSIONS = "org.apache.spark.sql.catalyst.expressions"
_NO_CULPRITS = (
    "InputFileName",
    "InputFileBlockStart",
    "InputFileBlockLength",
    "SubqueryExpression",
    "aggregate.AggregateFunction",
)
"""What Spark takes for chance: where a row was read, what is looked at by itself, and aggregates of an order."""


def check_query(queried: DataFrame, what: str, inputs: Collection[str]) -> None:
    """Refuse a query that reads anything but views of the inputs, or that gives other rows each time.

    Aggregates that depend on the order of rows, such as ``first``, are the user's affair: they may be ordered.

    Args:
        queried: what the query gives.
        what: where the query stands, as the user wrote it.
        inputs: names of the views.

    Raises:
        ConfigError: all such relations and expressions.
    """
    plan, known = queried._jdf.queryExecution().analyzed(), {name.casefold() for name in inputs}
    foreign = [
        f"{what} reads {name}, which is no input; expected inputs alone, whose changes are noticed; name it under "
        "source.inputs, as a path or a table"
        for name in dict.fromkeys(_foreign(plan, known))
    ]
    unsteady = _unsteady(queried.sparkSession, what, _nodes(plan))
    if foreign or unsteady:
        raise ConfigError(*foreign, *unsteady)


def check_condition(filtered: DataFrame, what: str) -> None:
    """The same for a condition by which a frame has just been filtered.

    Raises:
        ConfigError: it reads tables, or is true of other rows each time.
    """
    plan = filtered._jdf.queryExecution().analyzed()
    foreign = [
        f"{what} reads {name}; expected a condition on the primary input; join them in the query"
        for subquery in _each(plan.subqueries())
        for name in dict.fromkeys(_foreign(subquery, set()))
    ]
    nodes = (node for subquery in _each(plan.subqueries()) for node in _nodes(subquery))
    unsteady = _unsteady(filtered.sparkSession, what, [plan, *nodes])
    if foreign or unsteady:
        raise ConfigError(*foreign, *unsteady)


def _each(found: JavaObject) -> Iterator[JavaObject]:
    return (found.apply(place) for place in range(found.size()))


def _is_view(plan: JavaObject) -> bool:
    return bool(plan.getClass().getSimpleName() == "View")


def _nodes(plan: JavaObject) -> Iterator[JavaObject]:
    """Of the query itself and its subqueries, not of views."""
    if not _is_view(plan):
        yield plan
        for inner in (plan.children(), plan.subqueries()):
            for one in _each(inner):
                yield from _nodes(one)


def _foreign(plan: JavaObject, inputs: Collection[str]) -> Iterator[str]:
    """Names of relations that are no view of an input."""
    if _is_view(plan):
        view = plan.desc().identifier()
        if view.database().isDefined() or view.table().casefold() not in inputs:
            yield str(view.unquotedString())
        return
    for inner in (plan.children(), plan.subqueries()):
        for one in _each(inner):
            yield from _foreign(one, inputs)
    if plan.children().isEmpty() and plan.getClass().getSimpleName() not in _WITHOUT_DATA:
        yield _name(plan)


def _name(relation: JavaObject) -> str:
    kind = relation.getClass().getSimpleName()
    if kind == "LogicalRelation" and relation.catalogTable().isDefined():
        return str(relation.catalogTable().get().identifier().unquotedString())
    if kind == "LogicalRelation" and relation.relation().getClass().getSimpleName() == "HadoopFsRelation":
        return str(relation.relation().location().rootPaths().mkString(", "))
    return str(relation.name() if kind == "DataSourceV2Relation" else relation.simpleString(10))


def _unsteady(session: SparkSession, what: str, plans: Iterable[JavaObject]) -> list[str]:
    """One offence for each expression that gives other values each time."""
    current = session._jvm.org.apache.spark.sql.catalyst.trees.TreePattern.CURRENT_LIKE()  # type: ignore[union-attr]
    found = []
    for plan in plans:
        if plan.getClass().getSimpleName() == "Sample":
            found.append("TABLESAMPLE")
        if not plan.deterministic() or plan.containsPattern(current):
            for expression in _each(plan.expressions()):
                found += _culprits(session, expression, current)
    return [
        f"{what} has {one}, which gives other values each time; expected what the rows alone decide; take values that "
        "an input holds"
        for one in dict.fromkeys(found)
    ]


def _culprits(session: SparkSession, expression: JavaObject, current: JavaObject) -> Iterator[str]:
    """The innermost expressions that are by chance or by the clock."""
    if expression.deterministic() and not expression.containsPattern(current):
        return
    within = [
        child for child in _each(expression.children()) if not child.deterministic() or child.containsPattern(current)
    ]
    for child in within:
        yield from _culprits(session, child, current)
    gateway = session.sparkContext._gateway
    if not within and not any(is_instance_of(gateway, expression, f"{_EXPRESSIONS}.{kind}") for kind in _NO_CULPRITS):
        yield str(expression.sql())
