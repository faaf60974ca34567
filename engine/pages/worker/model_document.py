"""What a model is, as /api/v1/model tells it: its features and outputs, the shape of its trees or its graph, and one tree opened."""

import threading
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import ServedModel
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.shown import cut
from penstock.engine.pages.worker.masking import Masks
from penstock.engine.pages.worker.model_graph import graph_of
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.read import NotATreeError

features_max: Final = 2000
categories_max: Final = 24
"""Of a column that are told by name."""
category_characters: Final = 60
nodes_max: Final = 255
depth_max: Final = 7
"""Of an opened tree."""
forest_bytes_max: Final = 64 << 20
"""A larger model's trees are not read a second time for a page."""


class ModelDocument:
    """Made when it is asked for; the trees or the graph are read once, and only for who looks at them. Thread-safe."""

    def __init__(self, bundle: Bundle, model: ServedModel, *, masks: Masks) -> None:
        self._bundle = bundle
        self._model = model
        self._masks = masks
        self._forest: Forest | None = None
        self._graph: Mapping[str, Any] | None = None
        self._complete = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def document(self) -> dict[str, Any]:
        """All of the schema's `model` that does not change, once it is `complete`: until then the trees and the graph may be missing."""
        complete = self._complete
        bundle, model = self._bundle, self._model
        features = bundle.signature.features
        return {
            "model": {
                "name": cut(bundle.name),
                "version": cut(bundle.version),
                "digest": bundle.digest,
                "device": model.device.name,
                "runtime": model.runtime,
                "runtime_reason": model.reason,
            },
            "features": [
                {
                    "feature": cut(each.name),
                    "field": cut(each.field),
                    "kind": each.kind,
                    "categories": len(each.categories),
                    "missing": each.missing,
                    "sensitive": self._masks.hides_feature(each),
                }
                for each in features[:features_max]
            ],
            "features_total": len(features),
            "columns": [cut(each) for each in bundle.signature.columns],
            "outputs": [
                {"output": cut(each.name), "width": each.width, "meaning": each.meaning}
                for each in bundle.outputs
            ],
            "classes": [cut(each) for each in bundle.classes[:1000]],
            "trees": self._trees(),
            "graph": None
            if self._graph is None
            else {name: self._graph[name] for name in ("nodes_total", "layers", "parameters")},
            "complete": complete,
            "warmup": [{"rows": each.rows, "ms": each.ms} for each in model.warmup],
        }

    def graph(self) -> dict[str, Any] | None:
        """The graph of a model that is no ensemble of trees; None where there is none, or not yet."""
        self._opened()
        return None if self._graph is None else {"page": "graph", **self._graph}

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a classifier, in the order of its outputs; else none."""
        return tuple(self._bundle.classes)

    def column(self, number: int) -> dict[str, Any] | None:
        """What a column of the matrix is; None where there is none of this number."""
        signature = self._bundle.signature
        if not 0 <= number < len(signature.columns):
            return None
        feature = signature.column_features[number]
        masked = self._masks.hides_feature(feature)
        return {
            "feature": cut(signature.columns[number]),
            "kind": feature.kind,
            "categories": []
            if masked
            else [cut(each, category_characters) for each in feature.categories[:categories_max]],
            "masked": masked,
        }

    def tree(self, number: int) -> dict[str, Any] | None:
        """One tree, opened down to `depth_max`; None where there is none of this number."""
        forest = self._opened()
        if forest is None or not 0 <= number < forest.trees:
            return None
        nodes: list[dict[str, Any]] = []
        todo: list[tuple[int, int, int | None, str]] = [(int(forest.roots[number]), 0, None, "root")]
        while todo and len(nodes) < nodes_max:
            node, depth, parent, branch = todo.pop()
            nodes.append(self._node(forest, node, depth, parent, branch))
            if forest.leaf[node] < 0 and depth < depth_max:
                todo += [
                    (int(forest.no[node]), depth + 1, node, "no"),
                    (int(forest.yes[node]), depth + 1, node, "yes"),
                ]
        total = int((forest.tree_of_node() == number).sum())
        return {"page": "tree", "tree": number, "trees": forest.trees, "nodes_total": total, "nodes": nodes}

    def _node(self, forest: Forest, node: int, depth: int, parent: int | None, branch: str) -> dict[str, Any]:
        is_leaf = forest.leaf[node] >= 0
        test = None if is_leaf else self._test(forest, node)
        return {
            "node": node,
            "depth": depth,
            "parent": parent,
            "branch": branch,
            "test": None if test is None else test["text"],
            "said": test,
            "values": forest.leaf_values[forest.leaf[node]][:20].tolist() if is_leaf else None,
            "cover": None if forest.cover is None else float(forest.cover[node]),
        }

    def _test(self, forest: Forest, node: int) -> dict[str, Any]:
        column = int(forest.feature[node])
        feature = self._bundle.signature.column_features[column]
        name = cut(self._bundle.signature.columns[column], 60)
        missing = "_or_missing" if forest.missing_yes[node] else ""
        at = int(forest.set_index[node])
        if at < 0:
            threshold = f"{float(forest.threshold[node]):.6g}"
            return sentence(f"tree.at_most{missing}", feature=name, threshold=threshold)
        codes = (
            forest.set_values[forest.set_offsets[at] : forest.set_offsets[at + 1]].astype(np.int64).tolist()
        )
        named = [
            cut(feature.categories[code], 30) if 0 <= code < len(feature.categories) else str(code)
            for code in codes[:8]
        ]
        more = "_and_more" if len(codes) > 8 else ""
        return sentence(
            f"tree.is_one_of{more}{missing}", feature=name, categories=", ".join(named), count=len(codes) - 8
        )

    def _trees(self) -> Mapping[str, int] | None:
        forest = self._opened()
        if forest is None:
            return None
        return {
            "trees": forest.trees,
            "nodes": forest.nodes,
            "leaves": int((forest.leaf >= 0).sum()),
            "depth": sum(1 for _ in forest.levels()) - 1,
        }

    def _opened(self) -> Forest | None:
        """The trees, as soon as they are read; reading begins with the first who asks, and nobody waits for it."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._read, name="page-trees", daemon=True)
                self._thread.start()
        return self._forest

    def _read(self) -> None:
        try:
            self._forest = self._read_forest()
            if self._forest is None and not self._bundle.trees and self._bundle.table is None:
                self._graph = graph_of(self._bundle.model)
        finally:
            self._complete = True

    def _read_forest(self) -> Forest | None:
        from penstock.engine.explain.tree.tree_shap import forest_of  # late: most workers are never asked

        bundle = self._bundle
        if not bundle.trees or len(bundle.model) > forest_bytes_max:
            return None
        try:
            return forest_of(bundle)
        except NotATreeError:
            return None
