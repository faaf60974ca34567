"""The image: named by what it is made of, and holding nothing but what runs."""

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tomllib
import venv
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

root = Path(__file__).resolve().parents[3]
dockerfile = (root / "deploy" / "Dockerfile").read_text()
final_stages = ("cpu", "gpu")


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments on one line, comments left out."""
    text = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """By name: what it begins from, and its instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            begun = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert begun is not None, rest
            found[begun[2]] = (begun[1], [])
        elif found:
            list(found.values())[-1][1].append((word, rest))
    return found


def chain(name: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of those that it stands on, down to what is no stage."""
    begun, own = stages()[name]
    return [*(chain(begun) if begun in stages() else [("FROM", begun)]), *own]


def test_the_base_is_named_by_its_digest_and_nothing_else_is_pulled() -> None:
    (base,) = [rest for word, rest in instructions() if word == "ARG" and rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.11-bookworm@sha256:[0-9a-f]{64}", base)
    assert {begun for begun, _ in stages().values()} <= {"${BASE}", "scratch", *stages()}
    copied = [rest for word, rest in instructions() if word == "COPY" and "--from=" in rest]
    assert all(re.search(r"--from=(\S+)", rest)[1] in stages() for rest in copied)  # type: ignore[index]
    assert not any(word == "ADD" for word, _ in instructions())
    assert "syntax=" not in dockerfile  # a frontend is pulled, too


@pytest.mark.parametrize(
    ("base", "taken"),
    [
        ("python:3.11-bookworm@sha256:" + "a" * 64, True), ("python:3.11-bookworm", False), ("python@sha256:abc", False), ("", False),
        ("python:latest", False), ("python@sha256:" + "a" * 64 + " x", False),
    ],
)  # fmt: skip
def test_the_build_refuses_a_base_that_is_not_pinned(base: str, taken: bool) -> None:
    (check,) = [rest for word, rest in stages()["build"][1] if word == "RUN" and "$BASE" in rest]
    first = next(word for word, _ in stages()["build"][1] if word == "RUN")
    assert (first, stages()["build"][0]) == ("RUN", "${BASE}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", check], env={"BASE": base}, capture_output=True, text=True, timeout=10, check=False
    )  # fmt: skip
    assert (done.returncode == 0) is taken
    assert taken or "by its digest" in done.stderr


def test_whatever_is_installed_is_checked_against_its_hashes() -> None:
    runs = [part for word, rest in instructions() if word == "RUN" for part in re.split(r"&&|\|\|", rest)]
    installs = [each.strip() for each in runs if re.search(r"\b(install|build --wheel)\b", each)]
    assert len(installs) >= 4
    for each in installs:
        assert "--require-hashes" in each or each == "uv pip install --no-deps /wheels/*.whl", each
    for tool in ("apt-get", "apk ", "curl ", "wget ", "git clone"):
        assert not any(tool in each for each in runs), tool
    assert ("ENV", "UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 VIRTUAL_ENV=/opt/penstock") in stages()["build"][
        1
    ]


def pins(path: Path) -> dict[str, tuple[str, int]]:
    """Of a requirements file: version and number of hashes by name."""
    found: dict[str, tuple[str, int]] = {}
    for entry in re.split(r"\n(?=\S)", path.read_text()):
        begun = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry)
        if begun is not None:
            found[canonicalize_name(begun[1])] = (
                begun[2],
                len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)),
            )
    return found


@pytest.mark.parametrize("kind", final_stages)
def test_the_image_is_locked_as_everything_else_is(kind: str) -> None:
    ours, all_pins = pins(root / "deploy" / f"requirements-{kind}.txt"), pins(root / "requirements.txt")
    assert all(hashes > 0 for _, hashes in ours.values())
    other = {name for name, pin in ours.items() if name in all_pins and pin[0] != all_pins[name][0]}
    assert other <= {"numpy"}  # pinned twice, by the version of Python
    alone = ours.keys() - all_pins.keys()
    assert all(kind == "gpu" and name.startswith("nvidia-") for name in alone), alone
    assert kind == "cpu" or {"nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cufft"} <= ours.keys()
    project: Any = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gpu"], *extras["scaler"], *extras["sign"], *extras["admin"]]
    for each in map(Requirement, wanted):
        version, _ = ours[canonicalize_name(each.name)]
        assert version in each.specifier, each


@pytest.mark.parametrize("kind", final_stages)
def test_the_image_has_no_shell_no_root_and_one_command(kind: str) -> None:
    made = chain(kind)
    words = [word for word, _ in made]
    assert made[0] == ("FROM", "scratch")
    assert "RUN" not in words
    copies = [rest for word, rest in made if word == "COPY"]
    assert copies == [f"--from=root-{kind} /root-of-image /"]
    (user,) = [rest for word, rest in made if word == "USER"]
    assert re.fullmatch(
        r"[1-9]\d+:[1-9]\d+", user
    )  # by number, so that a cluster can tell that it is not root
    (entry,), (command,) = ([rest for word, rest in made if word == each] for each in ("ENTRYPOINT", "CMD"))
    assert entry.startswith("[")
    assert command.startswith("[")
    assert "VOLUME" not in words
    filled = stages()[f"root-{kind}"]
    assert [word for word, _ in filled[1]] == ["RUN"]
    assert re.fullmatch(
        r"/opt/penstock/bin/python deploy/rootfs\.py /root-of-image --compile --sbom", filled[1][0][1]
    )


def test_what_is_copied_is_let_in_and_nothing_beside_it() -> None:
    let_in = [
        line[1:]
        for line in (root / "deploy/Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    sources = {
        source
        for word, rest in instructions()
        if word == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    }
    for source in sources:
        assert any(fnmatch(source, pattern) or fnmatch(source + "/x", pattern) for pattern in let_in), source
        assert (root / source).exists(), source
    assert {pattern.removesuffix("/**") for pattern in let_in} == sources


def test_deployments_run_it_read_only() -> None:
    compose = (root / "docker-compose.yml").read_text()
    assert re.search(r"x-engine: &engine\n(?:  .*\n)*?  read_only: true\n", compose)
    pod = (root / "deploy/helm/penstock/templates/_pod.tpl").read_text()
    for line in ("readOnlyRootFilesystem: true", "runAsNonRoot: true", "allowPrivilegeEscalation: false"):
        assert line in pod


def module_of(name: str) -> ModuleType:
    """A program of deploy/."""
    spec = importlib.util.spec_from_file_location(name, root / "deploy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_elf(path: Path) -> bool:
    """A program or a shared library, by its first bytes."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, with native code of ours in it."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    venv.create(folder, symlinks=True, with_pip=False)
    site = next((folder / "lib").glob("python3*/site-packages"))
    (site / "ours").mkdir()
    (site / "ours" / "__init__.py").write_text("import os\n")
    (site / "ours" / "__init__.py").chmod(0o777)
    info = site / "ours-1.0.dist-info"  # as uv leaves it
    info.mkdir()
    (info / "uv_cache.json").write_text('{"timestamp": 1}')
    (info / "RECORD").write_text("ours/__init__.py,,\nours-1.0.dist-info/uv_cache.json,sha256=x,1\n")
    for module in (root / "engine" / "native").glob("_avro*.so"):
        shutil.copy(module, site / "ours")
    (folder / "bin" / "penstock").write_text(f"#!{folder}/bin/python\nprint('here')\n")
    (folder / "bin" / "penstock").chmod(0o755)
    return folder


def image_of(environment: Path, out: Path) -> Path:
    done = subprocess.run(
        [environment / "bin" / "python", root / "deploy" / "rootfs.py", out],
        env={"SOURCE_DATE_EPOCH": "1700000000", "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def image(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_of(environment, tmp_path_factory.mktemp("image") / "root")


def entries(image: Path) -> list[Path]:
    return [Path(folder) / name for folder, folders, names in os.walk(image) for name in (*folders, *names)]


def test_every_library_that_is_needed_is_in_the_image(image: Path) -> None:
    """Read off the files' own tables, with no loader."""
    there, needed = set(), {}
    for path in entries(image):
        there.add(path.name)
        if is_elf(path):
            told = subprocess.run(
                ["readelf", "-dl", path], capture_output=True, text=True, timeout=30, check=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]}
            ).stdout  # fmt: skip
            for name in re.findall(r"\(NEEDED\).*\[(.+)\]|interpreter: (\S+)\]", told):
                needed[Path(name[0] or name[1]).name] = path
    assert len(needed) > 5
    assert {name: path for name, path in needed.items() if name not in there} == {}
    links = [path for path in entries(image) if path.is_symlink()]
    assert links
    for path in links:
        target = os.readlink(path)
        inside = image / target.lstrip("/") if target.startswith("/") else path.parent / target
        assert os.path.lexists(inside), path


def test_nothing_in_the_image_is_a_shell_or_can_be_written(image: Path) -> None:
    for path in entries(image):
        state = path.lstat()
        assert state.st_mtime == 1_700_000_000, path
        if path.is_symlink():
            continue
        assert not state.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        shared_folder = path == image / "tmp"
        assert shared_folder or not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
        assert state.st_mode & (stat.S_IRGRP | stat.S_IROTH), path
    programs = {
        path.name
        for path in entries(image)
        if path.is_file() and os.access(path, os.X_OK) and ".so" not in path.name
    }
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "pip",
        "pip3",
        "apt",
        "dpkg",
        "perl",
        "curl",
        "busybox",
        "uv",
    }
    assert not list(image.rglob("pip"))
    users = (image / "etc/passwd").read_text().splitlines()
    assert all(line.endswith(":/nonexistent") for line in users)


def tree_digest(image: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(entries(image)):
        state = path.lstat()
        digest.update(f"{path.relative_to(image)} {state.st_mode} {state.st_mtime}\n".encode())
        digest.update(
            os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        )
    return digest.hexdigest()


def test_the_same_environment_gives_the_same_bytes(environment: Path, image: Path, tmp_path: Path) -> None:
    (note,) = environment.rglob("uv_cache.json")
    note.write_text('{"timestamp": 2}')  # of the second build
    (environment / "lib").touch()
    again = image_of(environment, tmp_path / "again")
    assert tree_digest(again) == tree_digest(image)
    (record,) = again.rglob("RECORD")
    assert record.read_text() == "ours/__init__.py,,\n"


def test_the_image_runs_as_its_user_where_nothing_else_is(environment: Path, image: Path) -> None:
    code = (
        "import ssl, ctypes, zlib, os, subprocess; from ours import _avro; assert os.getuid() == 10001\n"
        "try: subprocess.run('true', shell=True)\n"
        "except FileNotFoundError: print('no shell')\n"
        "try: open('/etc/x', 'w')\n"
        "except OSError: print('no writing')\n"
    )
    if os.geteuid() != 0:
        pytest.skip("only root may change into the image")
    inside = ["chroot", "--userspec=10001:10001", str(image)]
    done = subprocess.run(
        [*inside, str(environment / "bin/python"), "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.stdout.splitlines() == ["no shell", "no writing"], done.stderr
    started = subprocess.run(
        [*inside, str(environment / "bin/penstock")], capture_output=True, text=True, timeout=60, check=True
    )
    assert started.stdout == "here\n"


@pytest.mark.parametrize("name", ["sh", "bash", "busybox", "pip3", "apt-get", "gcc", "uv", "curl"])
def test_what_has_no_business_there_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).write_text("")
    rootfs = module_of("rootfs")
    assert list(rootfs.refused(tmp_path)) == []  # no program
    (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "lost").symlink_to("/usr/lib/gone.so")
    assert sorted(rootfs.refused(tmp_path)) == [
        f"bin/{name} is a program that the image must not hold",
        "lost leads nowhere",
    ]


def test_the_bill_of_materials_lists_the_libraries_of_the_image_too(image: Path) -> None:
    sbom = module_of("sbom")
    listed = {
        each["name"]: each["hashes"][0]["content"] for each in sbom.image_libraries(image, Path("/nowhere"))
    }
    there = {
        "/" + str(path.relative_to(image)) for path in entries(image) if ".so" in path.name and is_elf(path)
    }
    assert len(there) > 40
    assert listed.keys() == there
    some = sorted(there)[0]
    assert listed[some] == hashlib.sha256((image / some.lstrip("/")).read_bytes()).hexdigest()
