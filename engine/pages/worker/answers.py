"""What a worker answers its supervisor for the pages."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from penstock.engine.clock import Clock
from penstock.engine.pages.serving.callers import Callers
from penstock.engine.pages.shown import cut
from penstock.engine.pages.worker.background import BackgroundStrengths
from penstock.engine.pages.worker.model_document import ModelDocument
from penstock.engine.pages.worker.view import WorkerView
from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer, json_answer
from penstock.schemas.whole_number import whole_number


class WorkerAnswers:
    """On the worker's port, for this machine alone."""

    def __init__(self, view: WorkerView, *, clock: Clock) -> None:
        self._view = view
        self._callers = Callers((), clock=clock)
        self.model: ModelDocument | None = None
        self.background: BackgroundStrengths | None = None
        """Both None until the model is loaded."""

    def answer(self, request: Request) -> Answer | None:
        """None for what is no path of the pages."""
        paths: Mapping[str, Callable[[int], Any]] = {
            "/pages": lambda after: self._view.told(after, number_of(request, "most")),
            "/pages/reasons": lambda _: self._view.reasons(),
            "/pages/model": lambda _: None if self.model is None else self.model.document(),
            "/pages/background": lambda _: None if self.background is None else self.background.told(),
            "/pages/dependence": self._dependence,
            "/pages/graph": lambda _: None if self.model is None else self.model.graph(),
            "/pages/tree": lambda number: None if self.model is None else self.model.tree(number),
        }
        path = paths.get(request.path)
        if path is None:
            return None
        if (refusal := self._callers.refusal(request)) is not None:
            return refusal
        found = path(number_of(request, "after") or number_of(request, "number"))
        return Answer(body=b"", status=HTTPStatus.NOT_FOUND) if found is None else json_answer(found)

    def _dependence(self, number: int) -> Any:
        column = None if self.model is None else self.model.column(number)
        if self.model is None or column is None:
            return None
        if column["masked"]:
            return {**column, "values": [], "attributions": [], "outputs": [], "space": None}
        classes = self.model.classes
        points = self._view.points(number, classes=len(classes))
        outputs = [cut(classes[each]) for each in points["outputs"] if each < len(classes)]
        return {**column, **points, "outputs": outputs}


def number_of(request: Request, name: str) -> int:
    """0 for what is none."""
    return whole_number(request.query.get(name, "")) or 0
