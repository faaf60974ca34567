"""What a process is not given: files, memory, threads. One sentence with the cure, where Python has a traceback."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from penstock.schemas.errors import ConfigError

_memory_words: Final = (
    "cannot allocate memory",
    "failed to map segment",
    "cannot map zero-fill pages",
    "cannot create shared object descriptor",
    "out of memory",
    "bad_alloc",
    "bad allocation",
)
"""Of the loader, of C++ and of libraries, which raise errors of their own."""
_more_files: Final = "allow it 1024 (ulimit -n 1024; LimitNOFILE= of a systemd unit)"
files_min: Final = 64
"""Of a worker: its libraries, its port, and a connection of each of its five clients to each of a few brokers."""
address_space_min: Final = 2 << 30
"""Bytes. With less, Kafka's client cannot start its threads, and ends the process by an assertion; with 1.2 GB it was seen to."""
_memory_limited: Final = ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d"))
_thread_words: Final = ("can't start new thread", "resource temporarily unavailable", "pthread_create failed")


@contextmanager
def exhaustion_told() -> Iterator[None]:
    """Raises ConfigError with the sentence in place of an error that says that something ran out."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or (sentence := exhausted(error)) is None:
            raise
        raise ConfigError(sentence) from error


def require_limits() -> None:
    """Raises ConfigError where a worker may have so little that a library of its would end the process without a word."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < files_min:
        raise ConfigError(
            f"this process may open no more than {files} files and connections, and a worker needs {files_min} at least: {_more_files}"
        )
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < address_space_min:
        raise ConfigError(
            f"the address space of this process is limited to {space >> 20:,} MiB, and a worker needs {address_space_min >> 20:,} at "
            "least, most of which it never touches: lift the limit (ulimit -v unlimited; LimitAS= of a systemd unit)"
        )


def exhausted(error: BaseException) -> str | None:
    """What ran out, and the cure; None where the error, and what led to it, says nothing of that."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if (sentence := _sentence(cause)) is not None:
            return sentence
        cause = cause.__cause__ or cause.__context__
    return None


def _sentence(error: BaseException) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    text = str(error).lower()
    if number == errno.ENFILE:
        return "this machine may open no more files: raise fs.file-max (sysctl)"
    if number == errno.EMFILE or "too many open files" in text:
        return f"this process may open no more than {_soft(resource.RLIMIT_NOFILE)} files and connections, and needs more: {_more_files}"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(w in text for w in _memory_words):
        return f"there is not enough memory{_memory_limits()}: give the process, or its container, more"
    if any(words in text for words in _thread_words):
        return (
            f"this process may start no more threads: allow its user more than {_soft(resource.RLIMIT_NPROC)} processes and threads "
            f"(ulimit -u), or its container more (pids.max), or give it more address space{_memory_limits()}"
        )
    return None


def _soft(limit: int) -> str:
    value, _ = resource.getrlimit(limit)
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"


def _memory_limits() -> str:
    """The limits of this process on it, as far as there are any."""
    found = []
    for limit, name in _memory_limited:
        value, _ = resource.getrlimit(limit)
        if value != resource.RLIM_INFINITY:
            found.append(f"{name} is {value // 1024}")
    return f" ({', '.join(found)})" if found else ""
