"""CUDA C++ to machine code of one GPU, by NVIDIA's run-time compiler, which comes with ONNX Runtime's CUDA packages."""

import ctypes
import importlib.util
import re
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from penstock.schemas.errors import ConfigError

_system_names = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
_prototypes: dict[str, tuple[Any, ...]] = {
    "nvrtcVersion": (POINTER(c_int), POINTER(c_int)),
    "nvrtcCreateProgram": (
        POINTER(c_void_p), c_char_p, c_char_p, c_int, POINTER(c_char_p), POINTER(c_char_p)
    ),
    "nvrtcCompileProgram": (c_void_p, c_int, POINTER(c_char_p)),
    "nvrtcGetProgramLogSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetProgramLog": (c_void_p, c_char_p),
    "nvrtcGetCUBINSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetCUBIN": (c_void_p, c_char_p),
    "nvrtcDestroyProgram": (POINTER(c_void_p),),
    "nvrtcGetErrorString": (c_int,),
}  # fmt: skip


def compiler_names() -> list[str]:
    """Where the compiler may be: in the packages that carry it, the newest first, then wherever the system looks."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [path for folder in folders for path in Path(folder).glob("*/lib/libnvrtc.so.*")]
    found.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)], reverse=True)
    return [*map(str, found), *_system_names]


def compiled(
    source: bytes,
    *,
    name: str,
    capability: tuple[int, int],
    macros: dict[str, int],
    options: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> tuple[bytes, str]:
    """Machine code (a cubin) for GPUs of this compute capability, and what the compiler said.

    `name` is what it calls the source, `names` the libraries to try, compiler_names() when None. Raises ConfigError when
    there is no compiler, or it does not know such GPUs, or refuses the source.
    """
    library = _library(compiler_names() if names is None else names)
    words = [
        "--gpu-architecture=sm_{}{}".format(*capability),
        "--std=c++17",
        *(f"--define-macro={macro}={value}" for macro, value in macros.items()),
        *options,
    ]
    program = c_void_p()
    _call(library, "nvrtcCreateProgram", ctypes.byref(program), source, name.encode(), 0, None, None)
    try:
        array = (c_char_p * len(words))(*(word.encode() for word in words))
        status = library.nvrtcCompileProgram(program, len(words), array)
        said = _text(library, program)
        if status:
            reason = said.strip().split("\n", 1)[0] or _words(library, status)
            raise ConfigError(
                f"NVRTC does not compile {name} for sm_{capability[0]}{capability[1]}: {reason[:300]}"
            )
        return _bytes(library, program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"), said
    finally:
        _call(library, "nvrtcDestroyProgram", ctypes.byref(program))


def _library(names: Sequence[str]) -> Any:
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, arguments in _prototypes.items():
            getattr(library, function).argtypes = arguments
            getattr(library, function).restype = c_char_p if function == "nvrtcGetErrorString" else c_int
        return library
    raise ConfigError(
        "there is no CUDA compiler here: pip install 'onnxruntime-gpu[cuda]' brings one (libnvrtc)"
    )


def _call(library: Any, name: str, *arguments: Any) -> None:
    status = getattr(library, name)(*arguments)
    if status:
        raise ConfigError(f"{name}: {_words(library, status)}")


def _words(library: Any, status: int) -> str:
    return str(library.nvrtcGetErrorString(status).decode(errors="replace"))


def _text(library: Any, program: c_void_p) -> str:
    data = _bytes(library, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
    return data.rstrip(b"\0").decode(errors="replace")


def _bytes(library: Any, program: c_void_p, size_name: str, name: str) -> bytes:
    size = c_size_t()
    _call(library, size_name, program, ctypes.byref(size))
    data = ctypes.create_string_buffer(size.value)
    _call(library, name, program, data)
    return data.raw
