"""The page of `make test-cluster` is of all of its processes together."""

from pathlib import Path

from tests.cluster.report import Report, page


def test_what_several_processes_saw_stands_on_one_page(tmp_path: Path) -> None:
    first, second, third = (Report({"etcd": "3.6", "keda": "2.20"}) for _ in range(3))
    for each, sets, pods in ((first, 2, 3), (second, 1, 2)):
        for _ in range(sets):
            each.count("accepted", sets=1, pods=pods)
        each.count("refused", sets=1, **{"by_schema" if each is first else "by_chart": 1})
    second.note("client", "specs and metrics")
    first.note_plane(start_s=4.3, memory_mb={"etcd": 90, "keda-operator": 110})
    second.note_plane(start_s=6.7, memory_mb={"etcd": 108})
    for number, each in enumerate((first, second, third)):
        each.save(tmp_path, f"gw{number}")
    said = page(tmp_path)
    assert "etcd 3.6, keda 2.20, built from" in said
    assert "| 6.7 s from nothing to the controllers' first work, the slowest of 2 at once |" in said
    assert "| etcd 108 MB, keda-operator 110 MB, the most of any |" in said
    assert "| 3 of 3, 8 pods |" in said
    assert "| 2 of 2: 1 by the schema, 1 by the chart |" in said
    assert "| KEDA's own client | specs and metrics |" in said
    assert "nothing made" in said
    assert "The broker away" not in said


def test_a_run_of_one_process_says_nothing_of_several(tmp_path: Path) -> None:
    only = Report({"etcd": "3.6"})
    only.note_plane(start_s=4.3, memory_mb={"etcd": 90})
    only.save(tmp_path, "main")
    said = page(tmp_path)
    assert "first work |" in said
    assert "| It holds, at the end | etcd 90 MB |" in said
    assert "Value sets" not in said
