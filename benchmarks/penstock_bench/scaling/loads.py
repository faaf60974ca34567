"""Loads: what arrives in each partition each second, drawn from a seed, and what goes wrong meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
partitions: Final = 64
capacity_records_per_s: Final = 100.0
"""Of one replica; loads are made to need some 4 to 50 of them."""
duration_s: Final = 7200


@dataclass(frozen=True, kw_only=True)
class Load:
    """`arrivals`: records per second and partition, shape (seconds, partitions); times in seconds."""

    name: str
    seed: int
    arrivals: Array
    startup_s: tuple[float, float] = (40.0, 80.0)
    rebalance_s: float = 4.0
    blind: tuple[int, int] = (0, 0)  # from when to when the scaler, or the trigger, gives no value
    stuck: tuple[int, int, int] = (0, 0, 0)  # partition, from, to: nothing is finished
    pods_max: int = 64  # more find no node
    capacity_records_per_s: float = capacity_records_per_s

    @property
    def partitions(self) -> int:
        """How many there are."""
        return int(self.arrivals.shape[1])


def shares(rng: np.random.Generator, exponent: float) -> Array:
    """Of each partition; Zipf in random places."""
    weights = 1.0 / np.arange(1, partitions + 1) ** exponent
    return rng.permutation(weights / weights.sum())


def _step(t: Array, rng: np.random.Generator) -> Array:
    low, times = rng.uniform(300, 800), rng.uniform(3, 8)
    up, down = rng.uniform(1200, 2400), rng.uniform(4500, 6000)
    return np.where((t > up) & (t < down), low * times, low)


def _ramp(t: Array, rng: np.random.Generator) -> Array:
    low, high = rng.uniform(300, 600), rng.uniform(2000, 4000)
    up, length = rng.uniform(600, 1500), rng.uniform(1200, 2700)
    rise = np.clip((t - up) / length, 0, 1)
    fall = np.clip((t - up - length - 900) / length, 0, 1)
    return low + (high - low) * (rise - fall)


def _flash(t: Array, rng: np.random.Generator) -> Array:
    low = rng.uniform(250, 450)
    rate = np.full_like(t, low)
    for at in rng.uniform(900, 6300, 2):
        rate += 9 * low * np.where(t > at, np.exp(-np.maximum(t - at, 0) / rng.uniform(120, 300)), 0.0)
    return rate


def _sawtooth(t: Array, rng: np.random.Generator) -> Array:
    period = rng.uniform(180, 600)
    return rng.uniform(500, 900) * (1.0 + rng.uniform(0.8, 1.6) * ((t / period) % 1.0))


def _batch(t: Array, rng: np.random.Generator) -> Array:
    rate = np.full_like(t, rng.uniform(200, 400))
    for begin in np.arange(rng.uniform(600, 1200), duration_s, rng.uniform(2000, 2800)):
        rate += np.where((t >= begin) & (t < begin + 240), rng.uniform(2000, 3500), 0.0)
    return rate


def _silence(t: Array, rng: np.random.Generator) -> Array:
    begin, length = rng.uniform(1500, 2500), rng.uniform(1200, 2400)
    return np.where((t > begin) & (t < begin + length), 5.0, rng.uniform(800, 2000))


def _wave(t: Array, rng: np.random.Generator) -> Array:
    mean = rng.uniform(1200, 2200)
    slow = 1.0 + 0.6 * np.sin(2 * np.pi * (t / duration_s + rng.uniform()))
    noise = np.interp(t, np.arange(0, duration_s + 60, 60), rng.normal(1.0, 0.08, duration_s // 60 + 1))
    return mean * slow * np.clip(noise, 0.5, 1.5)


def _steady(t: Array, rng: np.random.Generator) -> Array:
    return np.full_like(t, rng.uniform(800, 2500))


shapes: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "step": _step, "ramp": _ramp, "flash": _flash, "sawtooth": _sawtooth, "batch": _batch, "silence": _silence,
    "wave": _wave, "steady": _steady,
}  # fmt: skip
faults: dict[str, tuple[str, dict[str, Any]]] = {
    "blind for 5 min": ("step", {"blind": (3000, 3300)}),
    "stuck partition": ("wave", {"stuck": (17, 2000, 3500)}),
    "node shortage": ("step", {"pods_max": 20}),
    "slow start": ("wave", {"startup_s": (180.0, 420.0)}),
}
names: Final = (*shapes, *faults)


def load(name: str, seed: int, *, skew: float | None = None) -> Load:
    """One load; the same name and seed give the same numbers."""
    rng = np.random.default_rng([seed, names.index(name)])
    shape, changes = faults.get(name, (name, {}))
    rate = shapes[shape](np.arange(duration_s, dtype=np.float64), rng)
    exponent = rng.choice([0.0, 0.1, 0.25]) if skew is None else skew
    arrivals = rng.poisson(np.outer(rate, shares(rng, exponent))).astype(np.float64)
    low = rng.uniform(25, 60)
    startup = (low, low * rng.uniform(1.3, 2.0))
    return Load(
        name=name, seed=seed, arrivals=arrivals, rebalance_s=rng.uniform(2, 8), **{"startup_s": startup, **changes}
    )  # fmt: skip


def zipf_steady(seed: int, *, exponent: float = 0.5, rate: float = 1000.0) -> Load:
    """A steady load of which a few partitions get much."""
    rng = np.random.default_rng([seed, 100])
    arrivals = rng.poisson(np.tile(rate * shares(rng, exponent), (duration_s, 1))).astype(np.float64)
    return Load(name=f"zipf {exponent:g}", seed=seed, arrivals=arrivals)


def trace(
    path: Path, seed: int, *, startup_s: float = 180.0, mean: float = 1000.0, hours: float = 24.0
) -> Load:
    """A recorded count every five minutes (CSV: time stamp, count), scaled to a mean rate; drawn as steps."""
    counts = np.loadtxt(path, delimiter=",", skiprows=1, usecols=1, dtype=np.float64)
    counts = counts[: int(hours * 12)]
    rng = np.random.default_rng([seed, 200])
    rate = np.repeat(counts / counts.mean() * mean, 300)
    arrivals = rng.poisson(np.outer(rate, shares(rng, 0.1))).astype(np.float64)
    return Load(name=path.stem, seed=seed, arrivals=arrivals, startup_s=(startup_s * 0.9, startup_s * 1.1))
