"""A TCP proxy that knows Kafka's requests: holds, drops, repeats, refuses or cuts single ones, on their way there or
back, and lets whole connections go silent or break; and brokers that are far away."""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tests.wire.messages import RequestHead, Tree
from tests.wire.refusals import Level, refuse, say

Address = tuple[str, int]
Where = Literal["request", "answer"]
Result = TypeVar("Result")

_addressed = {
    "Metadata",
    "FindCoordinator",
    "DescribeCluster",
    "Produce",
    "Fetch",
}  # answers that name brokers
frame_bytes_max = 256 << 20
_host = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request on its way through the proxy, and the broker that it is for."""

    head: RequestHead
    frame: bytes = field(repr=False)
    broker: Address

    def request(self) -> Tree:
        return self.head.request(self.frame)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Nothing passes on the connection in this direction until `release`, or so many seconds are over."""

    where: Where
    release: threading.Event = field(default_factory=threading.Event)
    seconds_max: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Drop:
    """The request never arrives, or its answer does not."""

    where: Where


@dataclass(frozen=True)
class Repeat:
    """The broker gets the request twice; the client gets one answer."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The connection breaks: before the broker has the request, or when it has answered."""

    where: Where


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """The broker gets nothing, and `code` is the answer."""

    code: int


@dataclass(frozen=True, kw_only=True)
class Say:
    """The broker does what it is asked to, and its answer says `code`."""

    code: int
    level: Level = "inner"


Action = Hold | Drop | Repeat | Cut | Refuse | Say


@dataclass(kw_only=True)
class Rule:
    """What happens to requests that it is about, at most `times` of them."""

    api: str
    action: Action
    client_id: str = ""  # "" is everybody's
    about: Callable[[Exchange], bool] = lambda _: True
    times: int = 1
    fired: int = 0
    struck: threading.Event = field(default_factory=threading.Event)


class _CutError(Exception):
    """The connection is to break."""


frames_under_way_max = 1024


class _Line:
    """One direction of a connection: frames arrive in the order in which they were sent, each `delay_s` later."""

    def __init__(self, writer: asyncio.StreamWriter, delay_s: float) -> None:
        self._writer, self._delay_s = writer, delay_s
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(frames_under_way_max)

    async def send(self, frame: bytes) -> None:
        """Waits where the other end takes no more."""
        if self._delay_s:
            await self._under_way.put((asyncio.get_running_loop().time() + self._delay_s, frame))
        else:
            await self._write(frame)

    async def run(self) -> None:
        """Delivers; for as long as the connection lasts."""
        while True:
            due_s, frame = await self._under_way.get()
            await asyncio.sleep(max(due_s - asyncio.get_running_loop().time(), 0.0))
            await self._write(frame)

    async def _write(self, frame: bytes) -> None:
        self._writer.write(struct.pack(">i", len(frame)) + frame)
        await self._writer.drain()


class Proxy:
    """Stands between clients and the brokers of one cluster; its own thread serves all connections.

    Clients that begin at `bootstrap_servers` stay with it: addresses in the brokers' answers are changed to its own. On one
    connection it keeps the order, as TCP does: what comes behind a held request waits as well. A held request arrives even
    if the client has gone meanwhile.
    """

    def __init__(self, servers: str, *, delay_s: float = 0.0) -> None:
        """`servers`: the brokers' plain-text addresses; `delay_s`: how far away they are, there and back each."""
        self.delay_s = delay_s
        self.seen: Counter[str] = Counter()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._ports: dict[Address, int] = {}
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        brokers = [_address(each) for each in servers.split(",")]
        self.bootstrap_servers = ",".join(f"{_host}:{self._call(self._port_of(each))}" for each in brokers)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, rule: Rule) -> Rule:
        """From now on. Of several that are about a request, the oldest that is not used up acts."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """No further request is touched by it."""
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)

    def clear(self) -> None:
        """No rule, and what is held is let go."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            if isinstance(rule.action, Hold):
                rule.action.release.set()

    def cut(self, client_id: str = "") -> int:
        """Break every connection of a client, or of everybody; how many there were."""

        async def cut() -> int:
            theirs = [each for each in self._connections if each.client_id.startswith(client_id)]
            for each in theirs:
                each.break_off()
            return len(theirs)

        return self._call(cut())

    def silence(self, client_id: str = "") -> int:
        """Half-open: on every connection there is now nothing passes any more in either direction, and none ends; how many.
        New connections work."""

        async def silence() -> int:
            theirs = [each for each in self._connections if each.client_id.startswith(client_id)]
            for each in theirs:
                each.silent = True
            return len(theirs)

        return self._call(silence())

    def refuse_connections(self, refused: bool) -> None:
        """Whether new connections end at once."""
        self._refusing = refused

    def close(self) -> None:
        """Break everything."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for each in list(self._connections):
                each.break_off()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.clear()
        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def rule_for(self, exchange: Exchange) -> Rule | None:
        """The rule that acts on this request, counted as used."""
        with self._lock:
            for rule in self._rules:
                if (
                    rule.api == exchange.head.name
                    and exchange.head.client_id.startswith(rule.client_id)
                    and rule.fired < rule.times
                    and rule.about(exchange)
                ):
                    rule.fired += 1
                    rule.struck.set()
                    return rule
        return None

    async def readdress(self, tree: Any) -> bool:
        """Put our addresses in the place of the brokers'; whether there were any."""
        changed = False
        if isinstance(tree, dict):
            if tree.get("Host"):  # the answer that there is no coordinator has an empty one
                tree["Port"] = await self._port_of((tree["Host"], tree["Port"]))
                tree["Host"], changed = _host, True
            for each in tree.values():
                changed |= await self.readdress(each)
        elif isinstance(tree, list):
            for each in tree:
                changed |= await self.readdress(each)
        return changed

    def joined(self, connection: "_Connection") -> None:
        self._connections.add(connection)

    def left(self, connection: "_Connection") -> None:
        self._connections.discard(connection)

    async def _port_of(self, broker: Address) -> int:
        """Where we listen for a broker; begins to, where it is new."""
        if broker not in self._ports:
            server = await asyncio.start_server(
                lambda reader, writer: self._serve(broker, reader, writer), _host, 0
            )
            self._servers.append(server)
            self._ports.setdefault(broker, server.sockets[0].getsockname()[1])
        return self._ports[broker]

    async def _serve(
        self, broker: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection(*broker)
        except OSError:
            writer.transport.abort()
            return
        with suppress(asyncio.CancelledError):  # at the end of the proxy
            await _Connection(self, broker, (reader, writer), there).run()

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        done: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(30.0)


class _Connection:
    """One client's connection to one broker."""

    def __init__(
        self,
        proxy: Proxy,
        broker: Address,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy, self._broker = proxy, broker
        self._from_client, self._client = here
        self._from_broker, self._broker_end = there
        self._to_client, self._to_broker = _Line(here[1], proxy.delay_s), _Line(there[1], proxy.delay_s)
        self._asked: dict[int, tuple[Exchange, Rule | None]] = {}  # answers that are awaited
        self.client_id = ""
        self.silent = False

    async def run(self) -> None:
        self._proxy.joined(self)
        answers = asyncio.ensure_future(self._pump(self._answers))
        lines = [asyncio.ensure_future(self._pump(each.run)) for each in (self._to_client, self._to_broker)]
        try:
            await self._pump(self._requests)
            # The client has gone; what it has asked last is with the broker, which is given the time to do it.
            for _ in range(100):
                if not self._asked:
                    break
                await asyncio.sleep(0.01)
        finally:
            for task in (answers, *lines):
                task.cancel()
            self.break_off()
            self._proxy.left(self)

    def break_off(self) -> None:
        self._client.transport.abort()
        self._broker_end.transport.abort()

    async def _pump(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except (_CutError, OSError, asyncio.IncompleteReadError):
            if work != self._requests:  # the broker went, or the connection is to break
                self.break_off()

    async def _requests(self) -> None:
        while True:
            frame = await _frame(self._from_client)
            await self._unless_silent()
            head = RequestHead.of(frame)
            self.client_id = head.client_id
            self._proxy.seen[head.name] += 1
            exchange = Exchange(head=head, frame=frame, broker=self._broker)
            rule = self._proxy.rule_for(exchange)
            self._asked[head.correlation] = (exchange, rule)
            match rule.action if rule else None:
                case Hold(where="request") as hold:
                    await _released(hold)
                case Drop(where="request"):
                    continue
                case Cut(where="request"):
                    self.break_off()
                    raise _CutError
                case Refuse(code=code):
                    await self._to_client.send(head.write_answer(refuse(head, frame, code)))
                    continue
                case Repeat():
                    await self._to_broker.send(frame)
            await self._to_broker.send(frame)

    async def _answers(self) -> None:
        while True:
            frame = await _frame(self._from_broker)
            await self._unless_silent()
            (correlation,) = struct.unpack_from(">i", frame)
            asked = self._asked.pop(correlation, None)
            if asked is None:  # the second answer to what was repeated
                continue
            exchange, rule = asked
            match rule.action if rule else None:
                case Hold(where="answer") as hold:
                    await _released(hold)
                case Drop(where="answer"):
                    continue
                case Cut(where="answer"):
                    raise _CutError
                case Say(code=code, level=level):
                    tree = say(exchange.head, exchange.head.answer(frame), code, level)
                    frame = exchange.head.write_answer(tree)
            if exchange.head.name in _addressed:
                tree = exchange.head.answer(frame)
                if await self._proxy.readdress(tree):
                    frame = exchange.head.write_answer(tree)
            await self._to_client.send(frame)

    async def _unless_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(0.1)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    if not 4 <= size <= frame_bytes_max:
        raise OSError(f"a frame of {size} bytes")
    return await reader.readexactly(size)


async def _released(hold: Hold) -> None:
    end_s = asyncio.get_running_loop().time() + hold.seconds_max
    while not hold.release.is_set() and asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(0.01)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)
