"""Java, Maven and the cache of jars, with programs of our own in the place of both."""

import os
import threading
from pathlib import Path

import pytest

from penstock.connectors.embedded.jars import find_java, kafka_jars
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.schemas.errors import ConfigError, NotReadyError

maven_that_works = """#!/bin/sh
echo run >> "$RUNS"
for word in "$@"; do case "$word" in -DoutputDirectory=*) target="${word#*=}";; esac; done
mkdir -p "$target" && touch "$target/kafka_2.13-4.1.1.jar"
"""
maven_that_fails = """#!/bin/sh
echo "[INFO] hm"
echo "[ERROR] Could not resolve org.apache.kafka:kafka_2.13"
echo "[ERROR] see the docs"
exit 1
"""
maven_that_lies = "#!/bin/sh\nexit 0\n"


class Machine:
    """A PATH with nothing on it but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.cache = folder / "cache"
        self.runs = folder / "runs"
        self.told: list[str] = []
        self.environ = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PENSTOCK_CACHE": str(self.cache),
            "RUNS": str(self.runs),
        }

    def install(self, name: str, program: str) -> Path:
        path = self.programs / name
        path.write_text(program)
        path.chmod(0o755)
        return path

    def bare(self) -> dict[str, str]:
        return {**self.environ, "PATH": str(self.programs)}

    def jars(self) -> Path:
        return kafka_jars(self.told.append, self.environ)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_java_comes_from_java_home_before_the_path(machine: Machine, tmp_path: Path) -> None:
    on_path = machine.install("java", "#!/bin/sh\n")
    assert find_java(machine.bare()) == on_path
    (tmp_path / "home" / "bin").mkdir(parents=True)
    at_home = tmp_path / "home" / "bin" / "java"
    at_home.touch()
    assert find_java({**machine.bare(), "JAVA_HOME": str(tmp_path / "home")}) == at_home
    assert find_java({**machine.bare(), "JAVA_HOME": str(tmp_path / "gone")}) == on_path


def test_without_java_the_package_to_install_is_named(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="apt-get install default-jre-headless"):
        find_java(machine.bare())


def test_without_maven_the_package_to_install_is_named_and_nothing_is_made(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="apt-get install maven"):
        kafka_jars(machine.told.append, machine.bare())
    assert not machine.cache.exists()


def test_jars_are_fetched_once_and_maven_is_not_needed_again(machine: Machine) -> None:
    machine.install("mvn", maven_that_works)
    folder = machine.jars()
    assert [jar.name for jar in folder.iterdir()] == ["kafka_2.13-4.1.1.jar"]
    (machine.programs / "mvn").unlink()
    assert kafka_jars(machine.told.append, machine.bare()) == folder
    assert len(machine.told) == 1


def test_of_many_at_once_one_fetches_and_the_others_wait(machine: Machine) -> None:
    machine.install("mvn", maven_that_works)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(machine.jars())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert machine.runs.read_text() == "run\n"


def test_a_failed_fetch_says_mavens_first_error_and_leaves_no_half_folder(machine: Machine) -> None:
    machine.install("mvn", maven_that_fails)
    with pytest.raises(ConfigError, match=r"Could not resolve org\.apache\.kafka:kafka_2\.13$"):
        machine.jars()
    machine.install("mvn", maven_that_lies)
    with pytest.raises(ConfigError, match="it said nothing"):
        machine.jars()
    assert [entry.suffix for entry in machine.cache.iterdir()] == [".lock"]
    machine.install("mvn", maven_that_works)
    assert machine.jars().is_dir()


def test_a_cache_that_cannot_be_written_is_one_sentence(machine: Machine, tmp_path: Path) -> None:
    machine.install("mvn", maven_that_works)
    (tmp_path / "file").touch()
    machine.environ["PENSTOCK_CACHE"] = str(tmp_path / "file")
    with pytest.raises(ConfigError, match="PENSTOCK_CACHE names another folder"):
        machine.jars()


@pytest.fixture
def fake_java(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine.install("mvn", maven_that_works)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    return machine


def left_behind(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("penstock-kafka")]


def test_an_old_java_is_named_as_the_reason(fake_java: Machine, tmp_path: Path) -> None:
    fake_java.install("java", '#!/bin/sh\necho "java.lang.UnsupportedClassVersionError: x" >&2\nexit 1\n')
    with pytest.raises(ConfigError, match="needs Java 17 or newer"):
        EmbeddedKafka().start()
    assert left_behind(tmp_path) == []


def test_a_failed_start_quotes_the_log(fake_java: Machine, tmp_path: Path) -> None:
    fake_java.install(
        "java",
        '#!/bin/sh\necho "INFO fine"\necho "ERROR Exiting: No space left on device"\necho "\tat x.Error: y"\nexit 1\n',
    )
    with pytest.raises(NotReadyError, match=r"storage: ERROR Exiting: No space left on device$"):
        EmbeddedKafka().start()
    assert left_behind(tmp_path) == []


def test_a_port_lost_to_somebody_else_is_tried_again_with_other_ports(
    fake_java: Machine, tmp_path: Path
) -> None:
    # making the storage succeeds; the server notes which ports it was given, and finds them taken
    fake_java.install(
        "java",
        '#!/bin/sh\nfor last; do :; done\ncase "$*" in *format.words*) exit 0;; esac\n'
        'grep ^listeners= "$last" >> "$RUNS.ports"\n'
        'echo "ERROR KafkaException: Socket server failed to bind: Address already in use"\nexit 1\n',
    )
    with pytest.raises(NotReadyError, match="Address already in use"):
        EmbeddedKafka().start()
    tried = Path(f"{fake_java.runs}.ports").read_text().splitlines()
    assert len(tried) > 1
    assert len(set(tried)) == len(tried)
    assert left_behind(tmp_path) == []
