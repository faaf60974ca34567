"""Numbers that a model tells apart and float32 does not."""

import numpy as np

from penstock.engine.features.narrowing import levels_of
from penstock.engine.features.signature import Feature


def crowded(features: tuple[Feature, ...], cuts: tuple[tuple[float, ...], ...]) -> tuple[str, ...]:
    """A note on columns whose thresholds are closer together than float32 tells numbers apart."""
    owners = [feature for feature in features for _ in range(feature.width)]
    close = []
    for feature, column in zip(owners, cuts, strict=False):
        values = np.array(column, dtype=np.float64)
        if len(values) and (levels_of(values) != values.astype(np.float32)).any():
            close.append(feature.name)
    if not close:
        return ()
    return (
        f"the model tells numbers of {', '.join(dict.fromkeys(close))} apart that float32 does not: they are compared in "
        "double precision as records are read, and shown rounded",
    )
