"""A network over the payments' numbers, for pages that draw one."""

from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import penstock
from tests.pages.running import payments


def package_network(folder: Path) -> None:
    """Two hidden layers; what is more is more risk."""
    frame = payments(600, seed=1)[["amount", "hour"]]
    fraud = (frame.amount + np.random.default_rng(2).normal(0, 20, len(frame)) > 130).astype(int)
    model = make_pipeline(
        StandardScaler(), MLPClassifier((8, 4), max_iter=3000, random_state=0, activation="tanh")
    )
    model.fit(frame, fraud)
    penstock.package(model, folder, name="card-network", version="1", background=frame[:60])
