"""What the page of the model asks for over HTTP: dependence, graph and background, of trees and of a network."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.engine.pages.sentences import static_folder
from tests.pages.networks import package_network
from tests.pages.running import Running, countries, running_engine
from tests.pages.test_pages import get

schema = json.loads((static_folder.parent / "schema.json").read_text())


def shown(folder: Path) -> Iterator[Running]:
    with running_engine(folder) as running:
        for start in (1000, 2000, 3000):
            running.send(200, start=start)
            time.sleep(0.3)
        running.wait_for(600)
        yield running


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from shown(tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("network")
    package_network(folder / "model")
    yield from shown(folder)


def asked(engine: Running, path: str, *, until: Any = bool) -> dict[str, Any]:
    """The document, once it is as wanted; it is as the schema says each time."""
    until_s = time.monotonic() + 30
    while True:
        status, _, document = get(engine.port, f"/api/v1/{path}")
        jsonschema.validate(document, schema)
        if status == 200 and until(document):
            found: dict[str, Any] = document
            return found
        assert time.monotonic() < until_s, document
        time.sleep(0.1)


def test_importance_stands_beside_that_over_the_background(trees: Running) -> None:
    told = asked(
        trees,
        "model",
        until=lambda each: each["importance"]["background"] == "known" and each["importance"]["features"],
    )
    importance = told["importance"]
    assert importance["background_rows"] == 100  # all that the bundle has
    for each in importance["features"]:
        assert each["background"] > 0
        assert each["strength"] / each["background"] == pytest.approx(1.0, abs=0.9)  # drawn by the same law
    codes = [each["code"] for each in told["summary"]]
    assert next(each.split(".")[-1] for each in codes if "background" in each) in (
        "stronger_than_background", "weaker_than_background", "as_over_background",
    )  # fmt: skip


def test_the_dependence_on_every_column_is_told_and_of_a_masked_one_nothing(trees: Running) -> None:
    model = asked(trees, "model", until=lambda each: each["importance"]["features"])
    masked = {each["feature"] for each in model["features"] if each["sensitive"]}
    assert masked == {"limit_used"}
    for each in model["importance"]["features"]:
        found = asked(trees, f"model/dependence/{each['column']}")
        assert found["feature"] == each["feature"]
        assert found["masked"] == (each["feature"] in masked)
        if found["masked"]:
            assert (found["records"], found["steps"]) == (0, [])
            continue
        assert found["records"] > 20
        assert sum(step["records"] for step in found["steps"]) == found["records"]
        if each["feature"] == "country":
            assert {step["category"] for step in found["steps"]} <= set(countries)
        if each["feature"] == "account_age_days":
            assert found["steps"][-1]["missing"]
        if each["feature"] == "amount":  # more of it is more risk
            assert found["steps"][-1]["mean"] > found["steps"][0]["mean"]


@pytest.mark.parametrize(
    ("path", "code"), [("model/dependence/5", "error.no_column"), ("model/graph", "error.no_graph"), ("model/trees/400", "error.no_tree")]
)  # fmt: skip
def test_a_part_that_is_not_there_is_told(path: str, code: str, trees: Running) -> None:
    status, _, document = get(trees.port, f"/api/v1/{path}")
    jsonschema.validate(document, schema)
    assert (status, document["error"]["code"]) == (404, code)


@pytest.mark.parametrize("path", ["model/dependence/x", "model/dependence/-1", "model/dependence/", "model/graph/1", "model/trees/"])  # fmt: skip
def test_a_path_that_names_no_part_is_none(path: str, trees: Running) -> None:
    assert get(trees.port, f"/api/v1/{path}")[2]["error"]["code"] == "error.no_path"


def test_a_network_is_told_as_its_graph(network: Running) -> None:
    model = asked(network, "model", until=lambda each: each["graph"] is not None)
    assert model["trees"] is None
    assert "model.graph" in [each["code"] for each in model["summary"]]
    found = asked(network, "model/graph")
    assert {name: found[name] for name in model["graph"]} == model["graph"]
    layers = {each["node"]: each["layer"] for each in found["nodes"]}
    for each in found["nodes"]:
        assert all(layers[maker] < each["layer"] for maker in each["comes_from"])
    assert sum(each["operator"] == "MatMul" or each["operator"] == "Gemm" for each in found["nodes"]) >= 2
    assert found["parameters"] > 3 * 8
    assert get(network.port, "/api/v1/model/trees/0")[0] == 404


def test_the_dependence_on_a_networks_feature_is_told(network: Running) -> None:
    found = asked(network, "model/dependence/0", until=lambda each: each["records"] > 20)
    assert found["feature"] == "amount"
    assert found["outputs"] == ["1"]  # of the second class, whichever was predicted
    assert found["summary"][0]["code"] == "dependence.range_of_class"
    assert found["steps"][-1]["mean"] > found["steps"][0]["mean"]
