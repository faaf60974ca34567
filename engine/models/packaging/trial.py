"""A model file tried in a process of its own: a library that aborts, or never comes back, takes no more than that with it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from penstock.schemas.errors import ConfigError

Kind = Literal["xgboost", "lightgbm", "catboost", "onnx", "skops"]
_libraries = {
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "catboost": "CatBoost",
    "onnx": "ONNX Runtime",
    "skops": "scikit-learn",
}
trial_s = 60.0
"""What loading and one row may take, and a second more for each 5 MB."""
_bytes_a_second = 5_000_000
_refused = "refused"
"""The file that holds why a library refuses the model."""


def in_a_process(words: list[str], allowed_s: float) -> int | None:
    """`main` in an interpreter of its own: its exit code, below 0 the signal that ended it, None where the time was over."""
    try:
        return subprocess.run(
            [sys.executable, "-P", "-m", __name__, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=allowed_s, check=False,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        return None


elsewhere: Callable[[list[str], float], int | None] = in_a_process
"""What runs a trial: whoever tries many thousand files forks a process that has its libraries already."""


def try_file(kind: Kind, data: bytes, *, rows_width: int = 1, format_name: str = "") -> None:
    """Load the model and predict one row of zeros, elsewhere. An exception there is no fault: here it gets a sentence.

    Raises ConfigError where the library takes its process down, does not come back in time, or refuses the model in a way that
    it would write to standard error itself if it were asked again.
    """
    allowed_s = trial_s + len(data) / _bytes_a_second
    with TemporaryDirectory() as folder:
        path = Path(folder, f"model.{format_name}" if format_name else "model")
        path.write_bytes(data)
        code = elsewhere([kind, str(path), str(rows_width)], allowed_s)
        refused = path.with_name(_refused)
        said = refused.read_text(encoding="utf-8") if refused.exists() else ""
    if code is None:
        raise ConfigError(
            f"{_libraries[kind]} does not come back from this model within {allowed_s:.0f} s: it has a loop without "
            "end, or is broken"
        )
    if code < 0:
        raise ConfigError(f"{_libraries[kind]} crashes on this model (signal {-code}): the file is broken")
    if said:
        raise ConfigError(f"{_libraries[kind]} refuses the model: {said}")


def _xgboost(path: Path, width: int) -> None:
    import numpy as np
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(path.read_bytes()))
    types = booster.feature_types
    matrix = xgboost.DMatrix(
        np.zeros((1, width)),
        feature_names=booster.feature_names,
        feature_types=types,
        enable_categorical=True,
    )
    booster.predict(matrix)
    booster.save_raw("ubj")


def _lightgbm(path: Path, width: int) -> None:
    import lightgbm
    import numpy as np

    try:
        booster = lightgbm.Booster(model_str=path.read_text(encoding="utf-8"))
        booster.predict(np.zeros((1, width)), num_threads=1)
    except lightgbm.basic.LightGBMError as error:
        path.with_name(_refused).write_text(" ".join(str(error).split()), encoding="utf-8")


def _catboost(path: Path, width: int) -> None:
    import catboost

    model = catboost.CatBoost()
    model.load_model(str(path), format=path.suffix.removeprefix("."))
    categorical = set(model.get_cat_feature_indices())
    row = ["0" if column in categorical else 0.0 for column in range(len(model.feature_names_))]
    model.predict(catboost.Pool([row], cat_features=sorted(categorical)), thread_count=1)
    model.save_model(str(path.with_name("again.json")), format="json")


def _onnx(path: Path, width: int) -> None:
    from penstock.engine.models.runtime.session import run_once

    run_once(path.read_bytes())


def _skops(path: Path, width: int) -> None:
    import numpy as np
    import skops.io

    from penstock.engine.models.packaging.sklearn.stored.intact import check_intact

    data = path.read_bytes()
    model = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    try:
        check_intact(model)
    except ConfigError:
        return  # whoever loads it next says so; a tree with a loop would not come back
    width = int(getattr(model, "n_features_in_", width))
    model.predict(np.random.default_rng(0).normal(size=(256, width)) * 100)


def main(arguments: list[str]) -> int:
    """Tried: kind, path, width of a row."""
    tries: dict[str, Any] = {
        "xgboost": _xgboost,
        "lightgbm": _lightgbm,
        "catboost": _catboost,
        "onnx": _onnx,
        "skops": _skops,
    }
    kind, path, width = arguments
    tries[kind](Path(path), int(width))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
