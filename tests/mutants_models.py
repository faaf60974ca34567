"""Sound model files of every format, of which mutants are made."""

import sys
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import skops.io
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock.engine.models.packaging.package import package
from tests.pmml_files import drawn


def sound_files(rows: Any, answers: Any, folder: Path) -> dict[str, bytes]:
    """A sound file of every format by the end of its name, of models of rows (R, F) and two classes (R,)."""
    boosted = xgboost.XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1).fit(rows, answers)
    found = {}
    for suffix in ("json", "ubj"):
        boosted.save_model(folder / f"m.{suffix}")
        found[f".{suffix}"] = (folder / f"m.{suffix}").read_bytes()
    light = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1).fit(rows, answers)
    found[".txt"] = light.booster_.model_to_string().encode()
    forest = RandomForestClassifier(3, max_depth=4, random_state=0).fit(rows, answers)
    found[".onnx"] = package(forest, folder / "bundle").bundle.model
    oblivious = catboost.CatBoostClassifier(
        iterations=4, depth=3, verbose=0, thread_count=1, allow_writing_files=False
    ).fit(rows, answers)
    for kind in ("cbm", "json"):
        oblivious.save_model(str(folder / f"cat.{kind}"), format=kind)
        found["cat.json" if kind == "json" else ".cbm"] = (folder / f"cat.{kind}").read_bytes()
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(2, max_depth=3, random_state=0))
    found[".skops"] = skops.io.dumps(pipeline.fit(rows, answers))
    found[".pmml"] = drawn("boosting, exp", 0).encode()
    return found


def rows_of_two_classes() -> tuple[Any, Any]:
    """Rows (400, 4) and a class (400,) that depends on two of their columns."""
    rows = np.random.default_rng(0).normal(size=(400, 4))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int)


def main(folder: Path) -> None:
    """Writes the sound files into a folder."""
    for ending, data in sound_files(*rows_of_two_classes(), folder).items():
        (folder / f"sound{ending}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
