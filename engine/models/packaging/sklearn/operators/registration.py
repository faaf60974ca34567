"""Telling skl2onnx of our own operators."""

import functools
from typing import Any

from skl2onnx import update_registered_converter
from skl2onnx._supported_operators import _get_sklearn_operator_name
from skl2onnx.common._registration import get_shape_calculator
from sklearn.base import ClassifierMixin

from penstock.engine.models.packaging.sklearn.boosters import booster_types
from penstock.engine.models.packaging.sklearn.committees.operators import add_majority, add_pairs, add_rest
from penstock.engine.models.packaging.sklearn.committees.stand_ins import Majority, Pairs, Rest
from penstock.engine.models.packaging.sklearn.estimated.stand_ins import Neighbourly, Regressed, Splines
from penstock.engine.models.packaging.sklearn.kernels.machine_nodes import add_kernel_chances
from penstock.engine.models.packaging.sklearn.kernels.machines import KernelChances
from penstock.engine.models.packaging.sklearn.kernels.mixtures import Mixture
from penstock.engine.models.packaging.sklearn.kernels.neighbour_nodes import (
    add_neighbour_shares,
    add_neighbour_values,
    neighbour_shapes,
)
from penstock.engine.models.packaging.sklearn.kernels.neighbours import NeighbourShares, NeighbourValues
from penstock.engine.models.packaging.sklearn.kernels.operators import (
    add_centroids,
    add_chi2_steps,
    add_distances,
    add_ellipse,
    add_hidden,
    add_isotone,
    add_kernel_map,
    add_kernel_shares,
    add_sketch,
    add_waves,
    map_shapes,
)
from penstock.engine.models.packaging.sklearn.kernels.process_nodes import add_process_mean, add_processes
from penstock.engine.models.packaging.sklearn.kernels.processes import Processes, ProcessMean
from penstock.engine.models.packaging.sklearn.kernels.stand_ins import (
    Centroids,
    Chi2Steps,
    Distances,
    Ellipse,
    Hidden,
    Isotone,
    KernelAnswer,
    KernelMap,
    KernelShares,
    Sketch,
    Waves,
)
from penstock.engine.models.packaging.sklearn.operators.columns import (
    add_chosen,
    add_normalized,
    add_powers,
    add_products,
    add_quantiles,
    add_scaled,
    chosen_shapes,
    products_shapes,
    scaled_shapes,
)
from penstock.engine.models.packaging.sklearn.operators.combined import (
    add_calibrated,
    add_chained,
    add_median,
    add_retargeted,
    add_stacked,
    add_votes,
)
from penstock.engine.models.packaging.sklearn.operators.estimated import (
    add_neighbourly,
    add_regressed,
    add_splines,
    estimated_shapes,
)
from penstock.engine.models.packaging.sklearn.operators.scores import (
    add_constant,
    add_constant_shares,
    add_kernel_decision,
    add_kernel_scores,
    add_linear_decision,
    add_linear_scores,
    add_mixture,
    class_shapes,
    score_shapes,
)
from penstock.engine.models.packaging.sklearn.operators.steps import (
    add_above,
    add_bins,
    add_filled,
    add_function,
    add_marks,
    add_narrow,
    add_table,
    bins_shapes,
    filled_shapes,
    marks_shapes,
    narrow_shapes,
    same_shape,
    table_shapes,
)
from penstock.engine.models.packaging.sklearn.operators.trees import (
    add_isolation,
    add_tree_margin,
    add_trees,
    booster_shapes,
)
from penstock.engine.models.packaging.sklearn.stand_ins import (
    Calibrated,
    Chained,
    Constant,
    ConstantShares,
    Isolation,
    KernelDecision,
    KernelScores,
    LinearDecision,
    LinearScores,
    Median,
    Retargeted,
    Stacked,
    TreeMargin,
    Votes,
)
from penstock.engine.models.packaging.sklearn.step_stand_ins import (
    Above,
    Bins,
    Chosen,
    FeatureTable,
    Filled,
    Marks,
    NamedFunction,
    Narrow,
    Normalized,
    Powers,
    Products,
    Projection,
    Quantiles,
    Scaled,
)
from penstock.engine.trees.readers.sklearn import tree_kinds

_class_options = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}
"""What skl2onnx asks of every classifier; ours answer in one way."""


@functools.cache
def register() -> None:
    """Tell skl2onnx of our operators, for estimators inside others too. Once in a process."""
    for kind in tree_kinds:
        _register(kind, get_shape_calculator(_get_sklearn_operator_name(kind)), add_trees)
    for kind in booster_types():
        _register(kind, booster_shapes, add_trees)
    for kind, shapes, add in (
        (FeatureTable, table_shapes, add_table),
        (NamedFunction, same_shape, add_function),
        (LinearScores, score_shapes, add_linear_scores),
        (LinearDecision, class_shapes, add_linear_decision),
        (KernelScores, score_shapes, add_kernel_scores),
        (TreeMargin, score_shapes, add_tree_margin),
        (Constant, score_shapes, add_constant),
        (ConstantShares, class_shapes, add_constant_shares),
        (Calibrated, class_shapes, add_calibrated),
        (Chained, score_shapes, add_chained),
        (Median, score_shapes, add_median),
        (Stacked, class_shapes, add_stacked),
        (Votes, class_shapes, add_votes),
        (Retargeted, score_shapes, add_retargeted),
        (Isolation, score_shapes, add_isolation),
        (Filled, filled_shapes, add_filled),
        (Narrow, narrow_shapes, add_narrow),
        (Projection, score_shapes, add_linear_scores),
        (Marks, marks_shapes, add_marks),
        (Bins, bins_shapes, add_bins),
        (Above, same_shape, add_above),
        (Chosen, chosen_shapes, add_chosen),
        (Scaled, scaled_shapes, add_scaled),
        (Quantiles, same_shape, add_quantiles),
        (Normalized, same_shape, add_normalized),
        (Powers, same_shape, add_powers),
        (Mixture, class_shapes, add_mixture),
        (Products, products_shapes, add_products),
        (KernelDecision, class_shapes, add_kernel_decision),
        (Neighbourly, estimated_shapes, add_neighbourly),
        (Regressed, estimated_shapes, add_regressed),
        (Splines, estimated_shapes, add_splines),
        (KernelMap, map_shapes, add_kernel_map),
        (KernelAnswer, map_shapes, add_kernel_map),
        (KernelShares, class_shapes, add_kernel_shares),
        (Distances, map_shapes, add_distances),
        (Isotone, map_shapes, add_isotone),
        (Waves, map_shapes, add_waves),
        (Chi2Steps, map_shapes, add_chi2_steps),
        (Sketch, map_shapes, add_sketch),
        (Hidden, map_shapes, add_hidden),
        (Ellipse, map_shapes, add_ellipse),
        (Centroids, class_shapes, add_centroids),
        (NeighbourValues, neighbour_shapes, add_neighbour_values),
        (NeighbourShares, class_shapes, add_neighbour_shares),
        (Processes, class_shapes, add_processes),
        (ProcessMean, map_shapes, add_process_mean),
        (KernelChances, class_shapes, add_kernel_chances),
        (Pairs, class_shapes, add_pairs),
        (Rest, class_shapes, add_rest),
        (Majority, class_shapes, add_majority),
    ):
        _register(kind, shapes, add)


def _register(kind: type, shapes: Any, add: Any) -> None:
    options = _class_options if issubclass(kind, ClassifierMixin) else None
    update_registered_converter(kind, f"Penstock{kind.__name__}", shapes, add, options=options)


def is_known(model: Any) -> bool:
    """Whether there is a way into ONNX for this kind of estimator."""
    try:
        return bool(_get_sklearn_operator_name(type(model)))
    except (RuntimeError, KeyError, ValueError):
        return False
