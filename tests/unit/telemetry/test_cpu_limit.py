"""A pod's CPU limit: read from its control group, and counted in what a worker that was never saturated is said to be able to do."""

from pathlib import Path

import numpy as np
import pytest

from penstock.engine.telemetry.capacity import CapacityEstimator, CpuShare
from penstock.engine.worker.startup.cpu_limit import cpu_limit_cores

period_s = 0.1  # of the kernel's bandwidth control


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("own", "groups", "cores"),
    [
        ("0::/\n", {"": {"cpu.max": "50000 100000\n"}}, 0.5),
        ("0::/\n", {"": {"cpu.max": "max 100000\n"}}, None),
        ("0::/\n", {"": {}}, None),
        ("0::/kubepods/pod1/c1\n", {"kubepods/pod1": {"cpu.max": "150000 100000\n"}, "kubepods/pod1/c1": {"cpu.max": "max 100000\n"}}, 1.5),
        ("0::/kubepods/pod1/c1\n", {"kubepods/pod1": {"cpu.max": "150000 100000\n"}, "kubepods/pod1/c1": {"cpu.max": "25000 100000\n"}}, 0.25),
        ("0::/../../x\n", {"": {"cpu.max": "200000 100000\n"}}, 2.0),
        ("4:cpu,cpuacct:/pod\n1:name=systemd:/\n", {"cpu,cpuacct/pod": {"cpu.cfs_quota_us": "80000\n", "cpu.cfs_period_us": "100000\n"}}, 0.8),
        ("4:cpuacct,cpu:/pod\n", {"cpu/pod": {"cpu.cfs_quota_us": "80000\n", "cpu.cfs_period_us": "100000\n"}}, 0.8),
        ("4:cpu:/pod\n", {"cpu/pod": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}}, None),
        ("2:cpuset:/pod\n", {"cpuset/pod": {"cpu.cfs_quota_us": "80000\n", "cpu.cfs_period_us": "100000\n"}}, None),
        ("", {"": {"cpu.max": "50000 100000\n"}}, None),
        ("0::/\n", {"": {"cpu.max": "lots\n"}}, None),
        ("0::/\n", {"": {"cpu.max": "50000 0\n"}}, None),
    ],
)  # fmt: skip
def test_the_limit_is_read_from_the_control_group(
    tmp_path: Path, own: str, groups: dict[str, dict[str, str]], cores: float | None
) -> None:
    write(tmp_path, {"own": own})
    for path, files in groups.items():
        write(tmp_path / "groups" / path, files)
    assert cpu_limit_cores(tmp_path / "groups", tmp_path / "own") == cores


def test_no_control_group_is_no_limit(tmp_path: Path) -> None:
    assert cpu_limit_cores(tmp_path / "none", tmp_path / "none") is None


class Limited:
    """A worker whose kernel lets it use so much of a core: it computes at full speed until the period's share is used up."""

    def __init__(self, *, cores: float, record_s: float, beside: float, idle: float, seed: int) -> None:
        """`record_s` of the compute side, `beside` so many times that on other threads, `idle` cores whatever comes."""
        self.cores, self.record_s, self.beside, self.idle = cores, record_s, beside, idle
        self.chance = np.random.default_rng(seed)
        self.share = CpuShare(cores=lambda: cores)
        self.estimate = CapacityEstimator(rows_max=500)

    @property
    def real_per_s(self) -> float:
        """Flat out: the compute side is one core at most, and all of it within the limit."""
        return min((self.cores - self.idle) / (self.record_s * (1 + self.beside)), 1 / self.record_s)

    def run(self, load: float, duration_s: float) -> None:
        """At this part of what it can do."""
        now_s = busy_s = cpu_s = 0.0
        credit_s = self.cores * period_s
        queued = 0
        while now_s < duration_s:
            queued += int(self.chance.poisson(load * self.real_per_s * period_s))
            credit_s = self.cores * period_s - self.idle * period_s
            cpu_s += self.idle * period_s
            at_s = now_s
            while queued and credit_s > 0 and at_s < now_s + period_s:
                rows = min(queued, 5)
                need_s = rows * self.record_s * (1 + self.beside)
                stopped_s = (
                    0.0 if need_s <= credit_s else period_s * (need_s - credit_s) / (self.cores * period_s)
                )
                batch_s = rows * self.record_s + stopped_s
                self.estimate.observe(rows=rows, busy_s=batch_s)
                busy_s, cpu_s, credit_s = busy_s + batch_s, cpu_s + need_s, credit_s - need_s
                at_s, queued = at_s + batch_s, queued - rows
            now_s = max(now_s + period_s, at_s)
            self.share.observe(now_s=now_s, busy_s=busy_s, cpu_s=cpu_s)

    @property
    def said_per_s(self) -> float:
        estimate = self.estimate.records_per_s()
        assert estimate is not None
        return estimate * self.share.left()


@pytest.mark.parametrize("cores", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("beside", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("load", [0.1, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_worker_with_little_to_do_is_said_to_do_what_its_limit_lets_it(
    cores: float, beside: float, load: float, seed: int
) -> None:
    worker = Limited(cores=cores, record_s=0.0004, beside=beside, idle=0.01, seed=seed)
    worker.run(load, 120.0)
    assert worker.said_per_s == pytest.approx(worker.real_per_s, rel=0.3)


def test_without_anything_to_go_by_the_estimate_stands() -> None:
    share = CpuShare(cores=lambda: 0.1)
    assert share.left() == 1.0
    for second in range(100):
        share.observe(now_s=second, busy_s=0.0, cpu_s=0.01 * second)
    assert share.left() == 1.0


def test_periods_that_are_all_alike_count_as_work() -> None:
    share = CpuShare(cores=lambda: 0.1)
    for second in range(100):
        share.observe(now_s=second, busy_s=0.05 * second, cpu_s=0.1 * second)
    assert share.left() == pytest.approx(0.05)


def test_a_limit_that_is_changed_counts_from_then_on() -> None:
    limits: list[float | None] = [None]
    share = CpuShare(cores=lambda: limits[0])
    busy_s = 0.0
    for second in range(100):
        busy_s += 0.1 if second % 10 < 5 else 0.3
        share.observe(now_s=second, busy_s=busy_s, cpu_s=2 * busy_s)
    assert share.left() == 1.0
    limits[0] = 0.5
    for second in range(100, 110):
        busy_s += 0.1 if second % 10 < 5 else 0.3
        share.observe(now_s=second, busy_s=busy_s, cpu_s=2 * busy_s)
    assert share.left() == pytest.approx(0.25, rel=0.01)
