"""Model files that are nearly right: sound ones of every format, with some bytes, digits or pieces of text changed."""

import io
import random
import zipfile
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


def mutant(data: bytes, chance: random.Random) -> bytes:
    """The file with 1 to 20 changes; of an archive, half of the time one of its members changed and packed again."""
    if data[:2] == b"PK" and chance.random() < 0.5:
        return _repacked(data, chance)
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(len(made))
        kind = chance.randrange(5)
        if kind == 0:
            made[place] = chance.randrange(256)
        elif kind == 1:
            made[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del made[place : place + chance.randrange(1, 40)]
        elif kind == 3:
            made[place:place] = made[place : place + chance.randrange(1, 40)]
        else:
            digits = [at for at in range(place, min(place + 200, len(made))) if 48 <= made[at] <= 57]
            if digits:
                made[digits[0]] = chance.choice(b"0123456789-")
        if not made:
            return b""
    return bytes(made)


def _repacked(data: bytes, chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out, "w") as made:
        names = given.namelist()
        changed = chance.choice(names)
        for name in names:
            held = given.read(name)
            made.writestr(name, mutant(held, chance) if name == changed and held else held)
    return out.getvalue()


def rows_of_two_classes() -> tuple[Any, Any]:
    """Rows (400, 4) and a class (400,) that depends on two of their columns."""
    rows = np.random.default_rng(0).normal(size=(400, 4))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int)
