"""The files of the image: this interpreter, its environment, and the libraries that they load; nothing else, and no shell.

    python deploy/rootfs.py ROOT [--compile] [--sbom]

Run by the interpreter of the environment that the image is to hold (sys.prefix). The same environment gives the same bytes: all
times are SOURCE_DATE_EPOCH, bytecode refers to no time, and nothing has an owner but root. Ends with 1 where a library is missing,
or where something would get in that has no business there.
"""

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

user_id: Final = 10001
left_out: Final = re.compile(
    r"(^|/)(__pycache__|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|config-[^/]*|site-packages)(/|$)|/(libpython[^/]*\.a|_tkinter[^/]*\.so|_test[^/]*\.so)$"
)
"""Of the standard library: what only developers run. Its site-packages hold pip."""
commands: Final = ("python", "python3", "penstock")
"""What is kept of the environment's bin folder."""
system_files: Final = (
    "etc/ssl/certs/ca-certificates.crt", "etc/ssl/openssl.cnf", "etc/services", "etc/protocols", "etc/nsswitch.conf",
    "etc/debian_version", "etc/os-release", "usr/share/zoneinfo",
)  # fmt: skip
unwelcome: Final = re.compile(
    r"^(sh|bash|dash|ash|zsh|busybox|apt(-get)?|dpkg|pip[0-9.]*|uv|perl[0-9.]*|curl|wget|gcc|cc|su|sudo|mount)$"
)
of_the_driver: Final = re.compile(r"^lib(cuda|nvidia-[a-z-]+)\.so")
"""Mounted into the container by the host."""
of_cuda: Final = re.compile(r"^lib(cu[a-zA-Z]+|nv[a-zA-Z]+)\.so")
"""Missing where the GPU's packages are not installed, and found by ONNX Runtime itself where they are."""
resolved: Final = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+|not found)")


def main() -> int:
    """Write the files; 1 and a sentence for what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--compile", action="store_true", help="bytecode beside every module")
    parser.add_argument(
        "--sbom", action="store_true", help="usr/share/doc/penstock/sbom.json, by deploy/sbom.py"
    )
    arguments = parser.parse_args()
    root = arguments.root.absolute()
    if root.exists():
        sys.stderr.write(f"{root} is there already\n")
        return 1
    copy_python(root)
    missing = copy_libraries(root)
    copy_system(root)
    if arguments.compile:
        compile_all(root)
    if arguments.sbom:
        write_sbom(root)
    normalise(root)
    faults = [*(f"{name} is needed and not here" for name in sorted(missing)), *refused(root)]
    for fault in faults:
        sys.stderr.write(fault + "\n")
    return 1 if faults else 0


def below(root: Path, path: Path) -> Path:
    """Where a file of this machine lies in the image."""
    return root / path.relative_to("/")


def copy_tree(source: Path, root: Path, *, only_modules: bool) -> None:
    """A folder to the same place in the image, links as links."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name in ("__pycache__", "localtime")  # the machine's zone is none of the image's
            or (only_modules and left_out.search("/" + str((Path(folder) / name).relative_to(source))))
        }

    shutil.copytree(source, below(root, source), symlinks=True, ignore=ignored, dirs_exist_ok=True)


def copy_python(root: Path) -> None:
    """The interpreter with its standard library, and the environment."""
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    copy_tree(base / "lib" / version, root, only_modules=True)
    libraries = sorted((base / "lib").glob(f"lib{version}.so*"))
    for path in (*libraries, Path(os.path.realpath(sys.executable))):
        copy_file(path, root)
    environment = Path(sys.prefix)
    copy_tree(environment, root, only_modules=False)
    links = below(root, environment) / "bin"
    for path in links.iterdir():
        if path.name not in commands and not path.is_dir():
            path.unlink()
    forget_moments(below(root, environment))
    # Whatever the links of a virtual environment go through: the image knows one interpreter.
    for name in ("python", "python3"):
        (links / name).unlink(missing_ok=True)
        (links / name).symlink_to(os.path.realpath(sys.executable))


def forget_moments(environment: Path) -> None:
    """Take away what uv notes about a wheel from this machine: when it was made."""
    for note in environment.rglob("*.dist-info/uv_cache.json"):
        note.unlink()
        record = note.with_name("RECORD")
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{note.parent.name}/{note.name},")]
        record.write_text("".join(kept), encoding="utf-8")


def copy_file(path: Path, root: Path) -> None:
    """A file to the same place, with the links that lead to it."""
    place = below(root, path.parent.resolve() / path.name)
    if place.is_symlink() or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target = Path(os.readlink(path))
        place.symlink_to(target)
        copy_file(target if target.is_absolute() else path.parent.resolve() / target, root)
    else:
        shutil.copyfile(path, place)
        place.chmod(path.stat().st_mode)


def elf_files(root: Path) -> Iterator[Path]:
    """Programs and shared libraries of the image."""
    for folder, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            path = Path(folder) / name
            if not path.is_symlink() and path.is_file():
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def copy_libraries(root: Path) -> set[str]:
    """What the files in the image need of the system, by the system's own loader; names of what is nowhere."""
    missing: set[str] = set()
    for path in list(elf_files(root)):
        # The loader looks from where the file really lies: the original, whose neighbours are in the image too.
        told = subprocess.run(
            ["ldd", str(Path("/") / path.relative_to(root))], capture_output=True, text=True, timeout=60, check=False
        ).stdout  # fmt: skip
        for line in told.splitlines():
            found = resolved.match(line)
            if found is None:
                continue
            if found["path"] == "not found":
                if not of_the_driver.match(found["name"]) and not of_cuda.match(found["name"]):
                    missing.add(found["name"])
            elif not (root / found["path"].lstrip("/")).exists():
                copy_file(Path(found["path"]), root)
    for name in ("lib", "lib64"):
        if Path("/", name).is_symlink() and not (root / name).exists() and (root / "usr" / name).is_dir():
            (root / name).symlink_to(Path("usr") / name)
    return missing


def copy_system(root: Path) -> None:
    """Certificates, names of services, zones; who there is; and a place for temporary files, which a deployment mounts."""
    for name in system_files:
        path = Path("/", name)
        if path.is_dir():
            copy_tree(path, root, only_modules=False)
        elif path.exists():
            place = root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/nonexistent:/nonexistent\npenstock:x:{user_id}:{user_id}:penstock:/nonexistent:/nonexistent\n"
    )
    (etc / "group").write_text(f"root:x:0:\npenstock:x:{user_id}:\n")
    for folder in ("tmp", "work", "etc/penstock", "models"):
        (root / folder).mkdir(parents=True, exist_ok=True)


def compile_all(root: Path) -> None:
    """Bytecode that is taken as it is: nobody can change the modules."""
    folders = [below(root, Path(sys.base_prefix)), below(root, Path(sys.prefix))]
    subprocess.run(
        [
            sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/",
            *map(str, folders),
        ],
        check=False, timeout=1800,
    )  # fmt: skip  # a package may hold a module for another version


def write_sbom(root: Path) -> None:
    """Every package, every shared library: those of the packages, and those of the system."""
    out = root / "usr/share/doc/penstock/sbom.json"
    out.parent.mkdir(parents=True)
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sbom.py")), str(out), "--root", str(root)], check=True, timeout=1800
    )  # fmt: skip


def normalise(root: Path) -> None:
    """One time, one owner's rights: everybody reads, nobody writes, and the temporary folder is for all."""
    at_s = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for folder, folders, names in os.walk(root, topdown=False):
        for name in (*folders, *names):
            path = Path(folder) / name
            if not path.is_symlink():
                runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if runs else 0o644)
            os.utime(path, (at_s, at_s), follow_symlinks=False)
    (root / "tmp").chmod(0o1777)
    root.chmod(0o755)
    for path in (root / "tmp", root):
        os.utime(path, (at_s, at_s))


def refused(root: Path) -> Iterator[str]:
    """What has no business in the image."""
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder) / name
            shown = path.relative_to(root)
            if name in names and unwelcome.match(name) and os.access(path, os.X_OK):
                yield f"{shown} is a program that the image must not hold"
            if path.is_symlink() and not os.path.exists(resolved_in(root, path)):
                yield f"{shown} leads nowhere"


def resolved_in(root: Path, link: Path) -> Path:
    """Where a link leads inside the image."""
    for _ in range(40):
        if not link.is_symlink():
            return link
        target = Path(os.readlink(link))
        link = below(root, target) if target.is_absolute() else link.parent / target
    return link


if __name__ == "__main__":
    raise SystemExit(main())
