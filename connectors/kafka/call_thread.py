"""A call that cannot be told to come back in time, made on a thread of its own."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue


class Aside:
    """Runs one call at a time; the thread that asks looks in for its end and is never held up.

    The thread is a daemon and lives until `close` and the end of its last call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ends: SimpleQueue[Exception | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    def run(self, call: Callable[[], None], timeout_s: float) -> bool:
        """Begin the call unless one is under way already; whether it ended within this time. Raises what it raised."""
        if not self._busy:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._busy = True
            self._calls.put(call)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Whether the call that was begun ended within this time. Raises what it raised."""
        try:
            error = self._ends.get(timeout=timeout_s)
        except Empty:
            return False
        self._busy = False
        if error is None:
            return True
        try:
            raise error
        finally:
            del error  # or it and this frame hold each other, and with them whatever the call used

    @property
    def busy(self) -> bool:
        """Whether a call is under way, or ended without anyone looking in."""
        return self._busy

    def close(self) -> None:
        """No call follows."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is raised where the call was asked for
                # Without the frames it went through: they hold the client, and one that is thrown away must be gone.
                self._ends.put(error.with_traceback(None))
            else:
                self._ends.put(None)
