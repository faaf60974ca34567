"""What a path of the pages or of /api/v1 answers."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import orjson

from penstock.engine.clock import Clock
from penstock.engine.pages.documents.records import first_rows
from penstock.engine.pages.sentences import sentence, static_folder
from penstock.engine.pages.serving.acting import Acting, acts
from penstock.engine.pages.serving.callers import Callers
from penstock.engine.pages.serving.live import Live
from penstock.engine.pages.serving.packing import packed, takes_gzip
from penstock.engine.pages.serving.static_files import StaticFiles, headers
from penstock.engine.pages.serving.streams import Streams
from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer, json_answer
from penstock.schemas.whole_number import whole_number

api: Final = "/api/v1/"
_record_path: Final = re.compile(r"/records/([a-zA-Z0-9._-]{1,249})/([0-9]{1,9})/([0-9]{1,18})")
_part_path: Final = re.compile(r"/api/v1/model/(?:(trees|dependence)/([0-9]{1,6})|graph)")
rows_max: Final = 2000
_missing_part: Final = {"trees": "error.no_tree", "dependence": "error.no_column", "graph": "error.no_graph"}


class Content(Protocol):
    """What the pages show. Called by the threads that answer; may wait a second for a worker's answer."""

    @property
    def documents(self) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """What stands at /api/v1/NAME, by name."""

    def before(self, page: str) -> None:
        """Somebody is about to look at the page: what has to be asked for first."""

    def record(self, topic: str, partition: int, offset: int) -> tuple[bytes | Mapping[str, Any], bool]:
        """One record, and whether it is held."""

    def part(self, kind: str, number: int) -> bytes | Mapping[str, Any] | None:
        """Of the model: one of its `trees`, the `dependence` on one of its columns, its `graph`."""


class Site:
    """The answers. Thread-safe."""

    def __init__(
        self,
        content: Content,
        live: Live,
        streams: Streams,
        *,
        pages: Sequence[str],
        hosts: Collection[str],
        clock: Clock,
        acting: Acting | None = None,
    ) -> None:
        """`pages`: the documents that have a page, which can be followed; the first one is shown at `/`. `acting`: answers what acts."""
        self._content = content
        self._live = live
        self._streams = streams
        self._callers = Callers(hosts, clock=clock)
        self._acting = acting
        self._pages = tuple(pages)
        self._files = StaticFiles(static_folder, pages=list(pages))
        self._schema = (static_folder.parent / "schema.json").read_bytes()

    def answer(self, request: Request) -> Answer | None:
        """None for what is no path of ours."""
        path = request.path
        is_page = path == "/" or path[1:] in self._pages or _record_path.fullmatch(path) is not None
        if not (is_page or path.startswith(("/static/", api))):
            return None
        word = path.removeprefix(api) if path.startswith(api) else ""
        acting = self._acting if word in acts else None
        if (refusal := self._callers.refusal(request)) is not None:
            if acting is not None:
                acting.was_refused(word, request)
            return refusal
        if acting is not None:
            return acting.answer(word, request)
        if word == "acts" and self._acting is not None and request.method != "POST":
            return self._acting.offered(request)
        if request.method == "POST":
            return Answer(
                body=b"", status=HTTPStatus.METHOD_NOT_ALLOWED, headers={**headers, "Allow": "GET, HEAD"}
            )
        if is_page:
            return self._files.answer("shell.html", request)
        if path.startswith("/static/"):
            return self._files.answer(path.removeprefix("/static/"), request)
        answer = self._api(path, request)
        return None if answer is None else packed(answer, request)

    def _api(self, path: str, request: Request) -> Answer | None:
        name = path.removeprefix(api)
        if name == "schema":
            return Answer(body=self._schema, headers=headers)
        if name == "events":
            page = request.query.get("page", self._pages[0])
            if page not in self._pages:
                return bad_parameter("page", page, ", ".join(self._pages))
            self._content.before(page)
            return self._streams.open(
                page, request.headers.get("last-event-id", ""), dict(headers), packed=takes_gzip(request)
            )
        if name in self._content.documents:
            return self._page(name, request)
        if (match := _record_path.fullmatch(path.removeprefix(api[:-1]))) is not None:
            return self._record(match[1], int(match[2]), int(match[3]), request)
        if (match := _part_path.fullmatch(path)) is not None:
            return self._part(match[1] or "graph", int(match[2] or 0))
        known = ", ".join(
            api + each
            for each in (
                *self._content.documents,
                "records/TOPIC/PARTITION/OFFSET",
                "model/trees/N",
                "model/dependence/COLUMN",
                "model/graph",
                "events",
                "schema",
                *(("acts", *sorted(acts)) if self._acting is not None else ()),
            )
        )
        return _json({"error": sentence("error.no_path", known=known)}, HTTPStatus.NOT_FOUND)

    def _record(self, topic: str, partition: int, offset: int, request: Request) -> Answer:
        odd = sorted(request.query.keys() - {"rows"})
        if odd:
            return bad_parameter(odd[0], request.query[odd[0]], "rows")
        asked = request.query.get("rows", str(rows_max))
        rows = whole_number(asked)
        if rows is None or not 1 <= rows <= rows_max:
            return bad_parameter("rows", asked, f"1 to {rows_max}")
        found, held = self._content.record(topic, partition, offset)
        if held and "rows" in request.query:
            found = first_rows(orjson.loads(found) if isinstance(found, bytes) else found, rows)
        status = HTTPStatus.OK if held else HTTPStatus.NOT_FOUND
        if isinstance(found, bytes):
            return Answer(body=found, status=status, headers=headers)
        return _json(found, status)

    def _part(self, kind: str, number: int) -> Answer:
        found = self._content.part(kind, number)
        if found is None:
            return _json({"error": sentence(_missing_part[kind], number=number)}, HTTPStatus.NOT_FOUND)
        if isinstance(found, bytes):
            return Answer(body=found, headers=headers)
        return _json(found, HTTPStatus.OK)

    def _page(self, name: str, request: Request) -> Answer:
        odd = sorted(set(request.query) - ({"outcome", "limit"} if name == "records" else set()))
        if odd:
            return bad_parameter(
                odd[0], request.query[odd[0]], "outcome, limit" if name == "records" else "none"
            )
        self._content.before(name)
        document = dict(self._content.documents[name]())
        if name != "records":
            return _json(document, HTTPStatus.OK)
        outcome, asked = request.query.get("outcome"), request.query.get("limit", "100")
        if outcome not in (None, "predicted", "rejected"):
            return bad_parameter("outcome", outcome, "predicted, rejected")
        limit = whole_number(asked)
        if limit is None or not 1 <= limit <= 100:
            return bad_parameter("limit", asked, "1 to 100")
        records = [each for each in document["records"] if outcome in (None, each["outcome"])]
        return _json({**document, "records": records[:limit]}, HTTPStatus.OK)


def bad_parameter(name: str, value: str, allowed: str) -> Answer:
    """400, with the parameter's name and what it may be."""
    return _json(
        {"error": sentence("error.bad_parameter", name=name[:100], value=value[:100], allowed=allowed)},
        HTTPStatus.BAD_REQUEST,
    )


def _json(value: Mapping[str, Any], status: HTTPStatus) -> Answer:
    plain = json_answer(value)
    return Answer(body=plain.body, status=status, headers=headers)
