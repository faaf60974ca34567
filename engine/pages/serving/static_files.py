"""The files of the pages, read once: with their digest, and compressed."""

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Final

from penstock.engine.pages.serving.packing import takes_gzip
from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer

types: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

policy: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing but our own files, no markup made from text, and in nobody's frame."""

headers: Final[Mapping[str, str]] = {
    "Content-Security-Policy": policy,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    body: bytes
    packed: bytes
    content_type: str
    tag: str


class StaticFiles:
    """Every file of a folder by its name, and nothing else."""

    def __init__(self, folder: Path, *, pages: Sequence[str]) -> None:
        """`pages`: those that there are, which the frame of all of them is told."""
        self._files = {
            each.name: _read(each, pages) for each in sorted(folder.iterdir()) if each.suffix in types
        }

    def answer(self, name: str, request: Request) -> Answer | None:
        """None where there is no such file; 304 for who has it."""
        file = self._files.get(name)
        if file is None:
            return None
        answer = Answer(
            body=file.body,
            content_type=file.content_type,
            headers={**headers, "Cache-Control": "no-cache", "ETag": file.tag},
        )
        if request.headers.get("if-none-match") == file.tag:
            return replace(answer, body=b"", status=HTTPStatus.NOT_MODIFIED)
        if takes_gzip(request):
            return replace(answer, body=file.packed, headers={**answer.headers, "Content-Encoding": "gzip"})
        return answer


def _read(path: Path, pages: Sequence[str]) -> _File:
    body = path.read_bytes()
    if path.suffix == ".html":
        body = body.replace(b'data-pages=""', f'data-pages="{" ".join(pages)}"'.encode())
    return _File(
        body=body,
        packed=gzip.compress(body, 9, mtime=0),
        content_type=types[path.suffix],
        tag=f'"{hashlib.sha256(body).hexdigest()[:20]}"',
    )
