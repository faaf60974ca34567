"""A copy of a fitted scikit-learn model that skl2onnx can convert: it takes one matrix of numbers, a category as its code.

Steps that read categories become tables, filled by the steps themselves, so that what they do with missing, unknown and
infrequent categories is kept; functions of one number become operators known by name.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    TargetEncoder,
)

from penstock.engine.models.packaging.sklearn.column_types import flag_objects, flags, float32
from penstock.engine.models.packaging.sklearn.columns import (
    Column,
    Input,
    branches,
    columns_after,
    function_name,
    function_refusal,
)
from penstock.engine.models.packaging.sklearn.estimated.stand_ins import estimated_stand_in
from penstock.engine.models.packaging.sklearn.inputs import Rows, then
from penstock.engine.models.packaging.sklearn.kernels.stand_ins import kernel_step
from penstock.engine.models.packaging.sklearn.members import members, with_members
from penstock.engine.models.packaging.sklearn.moved_tests import Mover, NotFoldedError
from penstock.engine.models.packaging.sklearn.operators.refused_kinds import why_not
from penstock.engine.models.packaging.sklearn.stand_ins import stand_in
from penstock.engine.models.packaging.sklearn.step_stand_ins import (
    FeatureTable,
    NamedFunction,
    in_row,
    is_idle,
    side_by_side,
    step_stand_in,
)
from penstock.schemas.errors import ConfigError


def surrogate(model: Any, inputs: list[Input], rows: Rows) -> tuple[Any, list[int]]:
    """The copy, and the places of the features that its matrix holds. Raises ConfigError, naming the step, where there is no
    way."""
    places = sorted(_needed(model, len(inputs)))
    columns = [Column(features=frozenset([place]), same=True) for place in range(len(inputs))]
    return _copied(
        model, columns, inputs, rows, {place: number for number, place in enumerate(places)}
    ), places


def reads_columns(model: Any) -> bool:
    """Whether branches of it take columns of their own, each in its type."""
    if isinstance(model, Pipeline):
        return reads_columns(model.steps[0][1])
    return isinstance(model, ColumnTransformer) or any(reads_columns(each) for each in members(model))


def _needed(model: Any, count: int) -> set[int]:
    """Features that the first steps are given."""
    first = model.steps[0][1] if isinstance(model, Pipeline) else model
    if isinstance(first, ColumnTransformer):
        return {place for _, _, places in branches(first) for place in places}
    if isinstance(first, Pipeline):
        return _needed(first, count)
    inner = members(model)
    return set[int]().union(*(_needed(each, count) for each in inner)) if inner else set(range(count))


def _copied(
    model: Any, columns: list[Column], inputs: list[Input], rows: Rows, numbers: dict[int, int]
) -> Any:
    """Of a model that is given the features themselves; `numbers`: where each of them stands in the matrix."""
    if isinstance(model, Pipeline):
        steps = [(each, step) for each, step in model.steps if not is_idle(step)]
        if len(steps) < len(model.steps):
            return _copied(Pipeline(steps), columns, inputs, rows, numbers)
        name, first = model.steps[0]
        rest = _plain_steps(model.steps[1:])
        if isinstance(first, Pipeline):
            return Pipeline([(name, _copied(first, columns, inputs, rows, numbers)), *rest])
        if isinstance(first, ColumnTransformer):
            return Pipeline([(name, _columnwise(first, columns, inputs, rows, numbers)), *rest])
        if any(_needs_table(inputs[place]) for place in numbers) or _is_encoder(first):
            return _tabled(model, name, columns, inputs, rows)
        return plain(model, name)
    if isinstance(model, ColumnTransformer):
        return _columnwise(model, columns, inputs, rows, numbers)
    if members(model):
        copied = with_members(
            model, [_copied(each, columns, inputs, rows, numbers) for each in members(model)]
        )
        return stand_in(copied) or copied
    if any(inputs[place].is_category for place in numbers):
        raise ConfigError(
            f"{type(model).__name__} is given texts, and takes numbers only: put an encoder before it"
        )
    return plain(model, type(model).__name__)


def _columnwise(
    step: ColumnTransformer, columns: list[Column], inputs: list[Input], rows: Rows, numbers: dict[int, int]
) -> Any:
    parts: list[tuple[str, Any, NDArray[np.int64], bool]] = []
    for name, inner, places in branches(step):
        given = [columns[place] for place in places]
        of_branch = rows.chosen(places)
        narrow = False
        if is_idle(inner):
            if any(inputs[place].is_category for place in places):
                named = ", ".join(inputs[place].name for place in places if inputs[place].is_category)
                raise ConfigError(f"step {name} passes texts on ({named}): encode them, or drop the columns")
            new: Any = None
        elif any(_needs_table(inputs[place]) for place in places) or _is_encoder(inner):
            new = _tabled(inner, name, given, inputs, of_branch)
        else:
            new = plain(inner, name, is_step=True)
            narrow = all(inputs[place].type is float32 for place in places)
        chosen = np.array([numbers[place] for place in places], dtype=np.int64)
        parts.append((name, new, chosen, narrow))
    return side_by_side(parts, step.transformer_weights)


def _needs_table(given: Input) -> bool:
    """Whether operators of numbers cannot read it."""
    return given.is_category or given.type is flags or given.type is flag_objects


def _is_encoder(step: Any) -> bool:
    """Whether it knows the values that it was fitted on, and a table of them says all."""
    first = step.steps[0][1] if isinstance(step, Pipeline) else step
    return isinstance(first, (OneHotEncoder, OrdinalEncoder, TargetEncoder))


def _tabled(step: Any, name: str, columns: list[Column], inputs: list[Input], rows: Rows) -> Any:
    """The step with its first part, as far as each column depends on one feature of known values, in a table."""
    steps = step.steps if isinstance(step, Pipeline) else [(name, step)]
    best: tuple[int, list[Column], Rows] | None = None
    after, made = columns, rows
    for count, (_, inner) in enumerate(steps, 1):
        if not hasattr(inner, "transform"):
            break
        after = columns_after(inner, after, inputs, made.apply)
        made = then(inner, made)
        if not all(_is_tabular(column, inputs) for column in after):
            break
        if _is_of_numbers(made):
            best = (count, after, made)
    if best is None:
        kind = type(steps[0][1]).__name__
        typed = [
            inputs[place].name
            for column in columns
            for place in column.features
            if inputs[place].is_typed_flag
        ]
        if typed:
            raise ConfigError(
                f"step {name} ({kind}) computes with the booleans of {', '.join(typed)} as such, beside numbers: train it on "
                f"X.astype({{{typed[0]!r}: 'float64'}})"
            )
        raise ConfigError(
            f"step {name} ({kind}) reads texts in a way that no table of categories holds: encode them one column at a time "
            "(OneHotEncoder, OrdinalEncoder, TargetEncoder)"
        )
    count, after, made = best
    table = _table([next(iter(column.features)) for column in columns], after, inputs, made)
    rest = _plain_steps(steps[count:])
    return Pipeline([("table", table), *rest]) if rest else table


def _is_tabular(column: Column, inputs: list[Input]) -> bool:
    return len(column.features) <= 1 and (
        column.flat or all(inputs[place].is_discrete for place in column.features)
    )


def _is_of_numbers(rows: Rows) -> bool:
    try:
        made = rows.values_applied([None] * len(rows.inputs), 1)
        np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype=np.float64)
    except (ValueError, TypeError):
        return False
    return True


def _table(owners: list[int], columns: list[Column], inputs: list[Input], rows: Rows) -> FeatureTable:
    mover = Mover(columns, inputs, rows.values_applied)
    keys: list[NDArray[np.float64] | None] = []
    tables: list[NDArray[np.float64]] = []
    order = np.zeros(len(columns), dtype=np.int64)
    width = 0
    for number, place in enumerate(owners):
        given = inputs[place]
        mine = [
            at
            for at, column in enumerate(columns)
            if place in column.features or (not column.features and number == 0)
        ]
        if given.is_category:
            key, values, other = None, given.table(), None
        else:
            points = sorted(
                {point for at in mine for point in columns[at].points}
                | ({0.0, 1.0} if given.is_flag else set())
            )
            key = np.array([0.0] if given.is_typed_flag else points, dtype=np.float64)
            values, other = key, np.array([1.0 if given.is_typed_flag else max(points, default=0.0) + 0.5])
        parts = [mover.tried(place, values)[:, mine]]
        # What the steps refuse never comes: the features' policies keep it away.
        parts += [_tried(mover, place, row, mine) for row in (other, given.missing_value())]
        keys.append(key)
        tables.append(np.concatenate(parts))
        order[mine] = width + np.arange(len(mine))
        width += len(mine)
    return FeatureTable(keys, tables, order)


def _tried(mover: Mover, place: int, values: NDArray[Any] | None, mine: list[int]) -> NDArray[np.float64]:
    if values is None:
        return np.zeros((1, len(mine)))
    try:
        return mover.tried(place, values)[:, mine]
    except NotFoldedError:
        return np.zeros((1, len(mine)))


def _plain_steps(steps: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The last ones of a pipeline; the very last may be its model."""
    return [
        (name, plain(step, name, is_step=place < len(steps) - 1)) for place, (name, step) in enumerate(steps)
    ]


def plain(step: Any, name: str, *, is_step: bool = False) -> Any:
    """The step with functions of NumPy known by name; `is_step`: it is asked to transform, whatever else it can. Raises
    ConfigError for any other function."""
    if is_idle(step):
        return NamedFunction("identity")
    if isinstance(step, Pipeline):
        steps = [(each, inner) for each, inner in step.steps if not is_idle(inner)]
        if is_step:
            return in_row([(each, plain(inner, each, is_step=True)) for each, inner in steps])
        return in_row(_plain_steps(steps))
    if isinstance(step, ColumnTransformer):
        parts = [
            (each, plain(inner, each, is_step=True), np.array(places, dtype=np.int64), False)
            for each, inner, places in branches(step)
        ]
        return side_by_side(parts, step.transformer_weights)
    if isinstance(step, FeatureUnion):
        union = [
            (each, plain(inner, each, is_step=True))
            for each, inner in step.transformer_list
            if inner != "drop"
        ]
        return FeatureUnion(union, transformer_weights=step.transformer_weights)
    if isinstance(step, FunctionTransformer):
        function = function_name(step)
        if function is None:
            raise ConfigError(f"step {name}: {function_refusal(step)}")
        return NamedFunction(function)
    found = kernel_step(step) if is_step else None
    if found is not None:
        return found
    kind = type(step).__name__
    if kind in why_not and type(step).__module__.startswith("sklearn."):
        raise ConfigError(f"step {name} ({kind}) is not packaged: {why_not[kind]}")
    inner = members(step)
    if inner:
        step = with_members(step, [plain(each, name) for each in inner])
    return stand_in(step) or step_stand_in(step) or estimated_stand_in(step) or step


def function_places(model: Any, count: int) -> set[int]:
    """Places of the features that a FunctionTransformer is given before any other step."""
    places = set(range(count))
    return _function_places(model, places)


def _function_places(step: Any, places: set[int]) -> set[int]:
    if isinstance(step, FunctionTransformer):
        return places if function_name(step) != "identity" else set()
    if isinstance(step, Pipeline):
        return _function_places(step.steps[0][1], places)
    if isinstance(step, FeatureUnion):
        return set[int]().union(*(_function_places(inner, places) for _, inner in step.transformer_list))
    if isinstance(step, ColumnTransformer):
        order = sorted(places)
        found = [_function_places(inner, {order[at] for at in chosen}) for _, inner, chosen in branches(step)]
        return set[int]().union(*found)
    return set[int]().union(*(_function_places(each, places) for each in members(step)))
