"""What every broker promises to the engine; one suite judges the memory broker and real Kafka alike."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from penstock.connectors.delivery.producer_port import BrokenError, TransactionalProducer, UnfinishedError
from penstock.connectors.partitioner import partition_of
from penstock.engine.ports import Delivery, Source
from penstock.schemas.errors import AbortedError, ConfigError, FencedError, InvariantError, UnavailableError
from penstock.schemas.records import Headers, Outgoing, Records
from tests.contract.bench import Bench, Recorder, delivery, firsts


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%06d" % number for number in range(start, start + count)]


class Noting:
    """A source whose records are noted as they come."""

    def __init__(self, source: Source, seen: set[bytes | None]) -> None:
        self._source = source
        self._seen = seen

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        records = self._source.poll(records_max, timeout_s)
        self._seen.update(records.values if records is not None else ())
        return records


class TestReading:
    def test_a_record_arrives_whole(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.write(
            topic,
            [b"value"],
            keys=[b"key"],
            timestamp_ms=1_700_000_000_123,
            headers=[("a", b"1"), ("b", None)],
        )
        bench.write(topic, [None, b""], keys=[None, b""])
        (first, *rest) = bench.poll(bench.source(bench.group(), topic), 3)
        records = [first, *rest]
        assert [v for r in records for v in r.values] == [b"value", None, b""]
        assert [k for r in records for k in r.keys] == [b"key", None, b""]
        assert [int(o) for r in records for o in r.offsets] == [0, 1, 2]
        assert int(first.timestamps_ms[0]) == 1_700_000_000_123
        assert list(first.headers(0)) == [("a", b"1"), ("b", None)]
        assert list(records[-1].headers(len(records[-1]) - 1)) == []

    def test_an_uncommitted_record_is_read_again_after_a_restart(self, bench: Bench) -> None:
        topic, group = bench.topic(), bench.group()
        bench.write(topic, numbered(10))
        first = bench.source(group, topic)
        assert sum(map(len, bench.poll(first, 10))) == 10
        first.close(5.0)
        again = bench.poll(bench.source(group, topic), 10)
        assert [v for r in again for v in r.values] == numbered(10)

    def test_no_more_than_asked_is_returned_and_nothing_is_skipped(self, bench: Bench) -> None:
        topic = bench.topic(partitions=3)
        for partition in range(3):
            bench.write(topic, numbered(20), partition=partition)
        polled = bench.poll(bench.source(bench.group(), topic), 60, records_max=7)
        assert max(map(len, polled)) <= 7
        for partition in range(3):
            values = [
                v for r in polled for p, v in zip(r.partitions, r.values, strict=True) if p == partition
            ]
            assert values == numbered(20)

    def test_paused_nothing_comes_and_the_membership_stays(self, bench: Bench) -> None:
        topic, group, listener = bench.topic(), bench.group(), Recorder()
        bench.write(topic, numbered(5))
        source = bench.source(group, topic, listener)
        bench.poll(source, 5)
        source.pause()
        source.pause()
        bench.write(topic, numbered(5, 5))
        assert all(source.poll(100, 0.05) is None for _ in range(10))
        source.membership()
        source.resume()
        source.resume()
        assert [v for r in bench.poll(source, 5) for v in r.values] == numbered(5, 5)
        assert listener.log == [("member", "assigned", (0,))]

    def test_paused_before_the_assignment_nothing_comes_either(self, bench: Bench) -> None:
        topic, listener = bench.topic(), Recorder()
        bench.write(topic, numbered(5))
        source = bench.source(bench.group(), topic, listener)
        source.pause()
        assert bench.until(lambda: listener.held == {0}, source) == []
        assert all(source.poll(100, 0.05) is None for _ in range(10))
        source.resume()
        assert [v for r in bench.poll(source, 5) for v in r.values] == numbered(5)

    def test_seek_reads_again_and_passes_over_what_is_not_assigned(self, bench: Bench) -> None:
        topic = bench.topic(partitions=2)
        bench.write(topic, numbered(50), partition=0)
        bench.write(topic, numbered(50), partition=1)
        source = bench.source(bench.group(), topic)
        bench.poll(source, 100)
        source.seek({0: 40, 1: 45, 7: 3})
        again = bench.poll(source, 15)
        assert firsts(again) == {0: 40, 1: 45}
        assert sum(map(len, again)) == 15

    def test_a_seek_throws_away_what_was_fetched_and_not_polled(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.write(topic, numbered(2000))
        source = bench.source(bench.group(), topic)
        bench.poll(source, 10, records_max=10)
        source.seek({0: 5})
        offsets = [int(o) for r in bench.poll(source, 1995, records_max=64) for o in r.offsets]
        assert offsets == list(range(5, 2000))

    def test_a_group_without_commits_begins_where_it_is_told(self, bench: Bench) -> None:
        topic, listener = bench.topic(), Recorder()
        bench.write(topic, numbered(5))
        source = bench.source(bench.group(), topic, listener, start="latest")
        assert bench.until(lambda: listener.held == {0}, source) == []
        for _ in range(10):
            assert source.poll(10, 0.02) is None
        bench.write(topic, numbered(3, 5))
        assert [v for r in bench.poll(source, 3) for v in r.values] == numbered(3, 5)

    def test_a_group_without_commits_stops_when_it_is_told_to(self, bench: Bench) -> None:
        topic = bench.topic()
        source = bench.source(bench.group(), topic, start="error")
        with pytest.raises(ConfigError, match="no committed offset"):
            bench.until(lambda: False, source)

    def test_a_committed_offset_that_is_gone_is_an_error_and_never_a_skip(self, bench: Bench) -> None:
        topic, group = bench.topic(), bench.group()
        bench.write(topic, numbered(20))
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        bench.poll(source, 20)
        sink.submit(Delivery(outgoing=[], positions={0: 5}), source.membership())
        bench.complete(sink)
        source.close(5.0)
        bench.delete_records(topic, 0, 10)
        later = bench.source(group, topic)
        with pytest.raises(ConfigError, match=topic):
            bench.until(lambda: False, later)

    def test_without_a_generation_there_is_no_membership(self, bench: Bench) -> None:
        source = bench.source(bench.group(), bench.topic())
        with pytest.raises(UnavailableError):
            source.membership()

    def test_commit_belongs_to_at_least_once(self, bench: Bench) -> None:
        source = bench.source(bench.group(), bench.topic())
        with pytest.raises(InvariantError):
            source.commit({0: 1})

    def test_a_topic_made_anew_is_read_from_its_beginning_under_another_id(self, bench: Bench) -> None:
        """Longer than before, so that the old offset is in it as well; what was taken of the old one commits nothing."""
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(10), partition=0)
        listener = Recorder()
        source, sink = bench.source(group, topic, listener), bench.sink(group, topic)
        old = bench.poll(source, 10)
        bench.until(
            lambda: listener.held == {0, 1}, source
        )  # a group that starts begins one partition after the other
        sink.submit(delivery(out, old), source.membership())
        bench.complete(sink)
        bench.recreate(topic, 2)
        bench.write(topic, numbered(20, 100), partition=0)
        seen: set[bytes | None] = set()
        new = bench.until(
            lambda: ("member", "lost", (0, 1)) in listener.log and seen >= set(numbered(20, 100)),
            Noting(source, seen),  # type: ignore[arg-type]
        )
        assert new[-1].topic_id not in (None, old[0].topic_id)
        sink.submit(delivery(out, new[-1:]), source.membership())
        bench.complete(sink)
        source.close(5.0)
        assert bench.source(group, topic).poll(100, 1.0) is None  # the commit is one of the new topic

    def test_latest_is_decided_once_for_every_partition(self, bench: Bench) -> None:
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(5), partition=1)
        listener = Recorder()
        source, sink = bench.source(group, topic, listener, start="latest"), bench.sink(group, topic)
        assert bench.until(lambda: listener.held == {0, 1}, source) == []
        bench.write(topic, numbered(5, 10), partition=0)
        sink.submit(delivery(out, bench.poll(source, 5)), source.membership())
        bench.complete(sink)
        source.close(5.0)
        bench.write(topic, numbered(7, 20), partition=1)
        later = bench.poll(bench.source(group, topic, start="latest"), 7)
        assert [value for records in later for value in records.values] == numbered(7, 20)


class TestRebalancing:
    def test_two_members_share_and_the_first_is_told_before_a_partition_moves(self, bench: Bench) -> None:
        topic, group = bench.topic(partitions=4), bench.group()
        log: list[tuple[str, str, tuple[int, ...]]] = []
        one, two = Recorder("one", log), Recorder("two", log)
        first = bench.source(group, topic, one)
        bench.until(lambda: one.held == {0, 1, 2, 3}, first)
        second = bench.source(group, topic, two)
        bench.until(lambda: len(one.held) == 2 and len(two.held) == 2, first, second)
        assert one.held | two.held == {0, 1, 2, 3}
        revoked = [e for e in log if e[1] == "revoked"]
        assert {p for _, _, partitions in revoked for p in partitions} == two.held
        assert log.index(revoked[0]) < next(
            i for i, e in enumerate(log) if e[0] == "two" and e[1] == "assigned" and e[2]
        )
        assert all(event != "lost" for _, event, _ in log)

    def test_who_leaves_hands_over_at_what_was_committed(self, bench: Bench) -> None:
        topic, group = bench.topic(partitions=2), bench.group()
        out = bench.topic("out", partitions=2)
        bench.write(topic, numbered(10), partition=0)
        bench.write(topic, numbered(10), partition=1)
        listener = Recorder()
        first, sink = bench.source(group, topic, listener), bench.sink(group, topic)
        bench.poll(first, 20)
        sink.submit(Delivery(outgoing=[], positions={0: 4, 1: 7}), first.membership())
        bench.complete(sink)
        first.close(5.0)
        assert listener.log[-1] == ("member", "revoked", (0, 1))
        later = bench.poll(bench.source(group, topic), 9)
        assert firsts(later) == {0: 4, 1: 7}
        assert bench.values(out) == []

    def test_work_finished_inside_the_revocation_is_not_read_again(self, bench: Bench) -> None:
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(10), partition=0)
        bench.write(topic, numbered(10), partition=1)
        one, two = Recorder("one"), Recorder("two")
        first, sink = bench.source(group, topic, one), bench.sink(group, topic)
        polled = bench.poll(first, 20)

        def drain() -> None:
            one.drain = lambda: None
            sink.submit(delivery(out, polled), first.membership())
            bench.complete(sink)

        one.drain = drain
        second = bench.source(group, topic, two)
        more = bench.until(lambda: len(two.held) == 1 and len(one.held) == 1, first, second)
        assert more == []
        assert second.poll(10, 0.2) is None
        assert sorted(v or b"" for v in bench.values(out)) == sorted(numbered(10) * 2)

    def test_an_old_membership_commits_nothing(self, bench: Bench) -> None:
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(4), partition=0)
        one, two = Recorder("one"), Recorder("two")
        first, sink = bench.source(group, topic, one), bench.sink(group, topic)
        polled = bench.poll(first, 4)
        old = first.membership()
        second = bench.source(group, topic, two)
        bench.until(lambda: len(two.held) == 1 and len(one.held) == 1, first, second)
        sink.submit(delivery(out, polled), old)
        with pytest.raises(AbortedError):
            bench.complete(sink)
        assert bench.values(out) == []
        assert bench.committed(group, topic) == {}

    def test_an_open_transaction_of_the_predecessor_holds_the_partition_back_and_no_other(
        self, bench: Bench
    ) -> None:
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(4), partition=0)
        bench.write(topic, numbered(4), partition=1)
        first, sink = bench.source(group, topic), bench.sink(group, topic)
        polled = list(bench.poll(first, 8))
        mine = delivery(out, polled)
        only_zero = Delivery(outgoing=mine.outgoing, positions={0: 4})
        sink.submit(only_zero, first.membership())
        bench.clock.sleep(1.0)  # the offsets are on their way, by another thread
        first.close(5.0)
        listener = Recorder()
        second = bench.source(group, topic, listener)
        came = bench.until(lambda: listener.held == {1}, second)
        came += [r for r in (second.poll(100, 0.02) for _ in range(20)) if r is not None]
        assert listener.held == {1}
        bench.sink(group, topic)  # the successor in the slot ends what the predecessor left open
        came += bench.until(lambda: listener.held == {0, 1}, second)
        came += bench.poll(second, 8 - sum(map(len, came))) if sum(map(len, came)) < 8 else []
        assert firsts(came) == {0: 0, 1: 0}
        assert bench.values(out) == []


class TestExactlyOnce:
    def test_outputs_and_offsets_become_visible_together(self, bench: Bench) -> None:
        topic, group = bench.topic(partitions=2), bench.group()
        out, explanations = bench.topic("out", partitions=2), bench.topic("why", partitions=2)
        bench.write(topic, numbered(20), keys=numbered(20))
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        polled = bench.poll(source, 20)
        one, two = delivery(out, polled), delivery(explanations, polled, mark=b"why ")
        sink.submit(
            Delivery(outgoing=[*one.outgoing, *two.outgoing], positions=one.positions), source.membership()
        )
        assert bench.values(out) == []
        bench.complete(sink)
        assert sorted(v or b"" for v in bench.values(out)) == numbered(20)
        assert len(bench.values(explanations)) == 20
        assert bench.committed(group, topic) == dict(one.positions)

    def test_what_is_aborted_is_invisible_and_the_sink_goes_on(self, bench: Bench) -> None:
        topic, out, group = bench.topic(partitions=3), bench.topic("out", partitions=3), bench.group()
        for partition in range(3):
            bench.write(topic, numbered(5, partition * 5), partition=partition)
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        polled = bench.poll(source, 15)
        sink.submit(delivery(out, polled, mark=b"void "), source.membership())
        assert sink.abort() == 0
        assert sink.has_room()
        assert bench.committed(group, topic) == {}
        source.seek(firsts(polled))  # every partition of it, not only the first
        again = bench.poll(source, 15)
        sink.submit(delivery(out, again), source.membership())
        bench.complete(sink)
        assert bench.values(out) == numbered(15)

    def test_the_positions_given_are_committed_and_not_the_consumer_s(self, bench: Bench) -> None:
        topic, group = bench.topic(), bench.group()
        bench.write(topic, numbered(100))
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        bench.poll(source, 100)
        sink.submit(Delivery(outgoing=[], positions={0: 7}), source.membership())
        bench.complete(sink)
        assert bench.committed(group, topic) == {0: 7}

    def test_a_newer_sink_with_the_same_ids_fences_the_older(self, bench: Bench) -> None:
        topic, out, group = bench.topic(), bench.topic("out"), bench.group()
        bench.write(topic, numbered(5))
        source, old = bench.source(group, topic), bench.sink(group, topic)
        polled = bench.poll(source, 5)
        old.submit(delivery(out, polled, mark=b"zombie "), source.membership())
        new = bench.sink(group, topic)
        with pytest.raises(FencedError):
            bench.complete(old)
        assert old.abort() == 0
        assert not old.has_room()
        new.submit(delivery(out, polled), source.membership())
        bench.complete(new)
        assert bench.values(out) == numbered(5)

    def test_records_keep_their_order_over_many_deliveries_in_turn(self, bench: Bench) -> None:
        topic, out, group = bench.topic(partitions=3), bench.topic("out", partitions=3), bench.group()
        keys = [b"key-%d" % (number % 17) for number in range(3000)]
        bench.write(topic, numbered(3000), keys=keys)
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        submitted = done = read = 0
        while read < 3000 or done < submitted:
            if read < 3000:
                for records in bench.poll(source, 1, records_max=50):
                    while not sink.has_room():
                        done += sink.advance(0.05)
                    sink.submit(delivery(out, [records]), source.membership())
                    submitted += 1
                    read += len(records)
            done += sink.advance(0.0)
        latest: dict[bytes, bytes] = {}
        for records in bench.read(out):
            for key, value in zip(records.keys, records.values, strict=True):
                assert key is not None
                assert value is not None
                assert latest.get(key, b"") < value
                latest[key] = value
        assert len(bench.values(out)) == 3000
        assert sum(bench.committed(group, topic).values()) == 3000

    def test_two_deliveries_may_be_under_way_and_an_abort_takes_both(self, bench: Bench) -> None:
        topic, out, group = bench.topic(), bench.topic("out"), bench.group()
        bench.write(topic, numbered(10))
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        records = bench.poll(source, 10)[0]
        half = len(records) // 2
        for part in (records.slice(0, half), records.slice(half, len(records))):
            assert sink.has_room()
            sink.submit(delivery(out, [part]), source.membership())
        assert not sink.has_room()
        assert sink.abort() == 0
        assert bench.values(out) == []
        sink.submit(delivery(out, [records]), source.membership())
        bench.complete(sink)
        assert bench.values(out) == list(records.values)

    def test_partitions_follow_the_input_when_the_topics_match_and_the_key_when_not(
        self, bench: Bench
    ) -> None:
        topic, group = bench.topic(partitions=3), bench.group()
        same, other = bench.topic("same", partitions=3), bench.topic("other", partitions=5)
        keys = numbered(60)
        for partition in range(3):  # against the keys, as a custom partitioner may have done
            bench.write(topic, keys[partition::3], keys=keys[partition::3], partition=partition)
        source, sink = bench.source(group, topic), bench.sink(group, topic)
        polled = bench.poll(source, 60)
        both = [*delivery(same, polled).outgoing, *delivery(other, polled).outgoing]
        sink.submit(Delivery(outgoing=both, positions={0: 20}), source.membership())
        bench.complete(sink)
        for records in bench.read(same):
            for partition, key in zip(records.partitions, records.keys, strict=True):
                assert key in keys[int(partition) :: 3]
        seen = 0
        for records in bench.read(other):
            for partition, key in zip(records.partitions, records.keys, strict=True):
                assert key is not None
                assert int(partition) == partition_of(key, 5)
                seen += 1
        assert seen == 60

    def test_a_delivery_without_positions_is_refused(self, bench: Bench) -> None:
        topic, group = bench.topic(), bench.group()
        sink = bench.sink(group, topic)
        with pytest.raises(InvariantError):
            sink.submit(Delivery(outgoing=[], positions={}), object())


class Trouble:
    """Stands before a producer; the first call of one kind ends as told, later ones pass. Shared by all producers."""

    def __init__(self, method: str, trouble: Callable[[Callable[[], None]], None]) -> None:
        self._method = method
        self._trouble = trouble
        self._due = True

    def __call__(self, producer: TransactionalProducer) -> TransactionalProducer:
        trouble = self

        class Troubled:
            def __getattr__(self, name: str) -> object:
                real = getattr(producer, name)
                if name != trouble._method or not trouble._due:
                    return real

                def call(*arguments: object) -> object:
                    trouble._due = False
                    return trouble._trouble(lambda: real(*arguments))

                return call

        return Troubled()  # type: ignore[return-value]


def lost_answer(call: Callable[[], None]) -> None:
    while True:
        try:
            call()
            break
        except UnfinishedError:
            pass
    raise BrokenError("the answer was lost")


def lost_request(_: Callable[[], None]) -> None:
    raise BrokenError("the request was lost")


class TestUnknownOutcomes:
    @pytest.fixture
    def parts(self, bench: Bench) -> tuple[str, str, str]:
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(10), partition=0)
        bench.write(topic, numbered(10, 10), partition=1)
        return topic, out, group

    def test_a_commit_whose_answer_is_lost_counts_as_delivered(
        self, bench: Bench, parts: tuple[str, str, str]
    ) -> None:
        topic, out, group = parts
        source = bench.source(group, topic)
        sink = bench.sink(group, topic, wrap=Trouble("commit", lost_answer))
        polled = bench.poll(source, 20)
        sink.submit(delivery(out, polled), source.membership())
        bench.complete(sink)
        assert bench.values(out) == numbered(20)

    def test_a_commit_whose_request_is_lost_is_aborted(
        self, bench: Bench, parts: tuple[str, str, str]
    ) -> None:
        topic, out, group = parts
        source = bench.source(group, topic)
        sink = bench.sink(group, topic, wrap=Trouble("commit", lost_request))
        polled = bench.poll(source, 20)
        sink.submit(delivery(out, polled, mark=b"void "), source.membership())
        with pytest.raises(AbortedError):
            bench.complete(sink)
        assert bench.committed(group, topic) == {}
        sink.submit(delivery(out, polled), source.membership())
        bench.complete(sink)
        assert bench.values(out) == numbered(20)

    @pytest.mark.parametrize("trouble", [lost_answer, lost_request])
    def test_the_delivery_behind_an_unknown_one_is_aborted(
        self, bench: Bench, parts: tuple[str, str, str], trouble: Callable[[Callable[[], None]], None]
    ) -> None:
        topic, out, group = parts
        source = bench.source(group, topic)
        sink = bench.sink(group, topic, wrap=Trouble("commit", trouble))
        records = list(bench.poll(source, 20))
        whole = delivery(out, records)
        one = Delivery(outgoing=whole.outgoing, positions={0: 10})
        two = Delivery(outgoing=whole.outgoing, positions={1: 10})
        sink.submit(one, source.membership())
        sink.submit(two, source.membership())
        first_happened = trouble is lost_answer
        if first_happened:
            bench.complete(sink)
        with pytest.raises(AbortedError):
            bench.complete(sink)
        assert bench.committed(group, topic) == ({0: 10} if first_happened else {})
        assert len(bench.values(out)) == (20 if first_happened else 0)
        assert sink.has_room()

    @pytest.mark.parametrize("trouble", [lost_answer, lost_request])
    def test_abort_tells_how_a_commit_under_way_ended(
        self, bench: Bench, parts: tuple[str, str, str], trouble: Callable[[Callable[[], None]], None]
    ) -> None:
        topic, out, group = parts

        def slow(call: Callable[[], None]) -> None:
            if trouble is lost_answer:
                with pytest.raises(BrokenError):
                    lost_answer(call)
            raise UnfinishedError("no answer yet")

        source = bench.source(group, topic)
        again = Trouble("commit", trouble)
        sink = bench.sink(group, topic, wrap=lambda producer: again(Trouble("commit", slow)(producer)))
        sink.submit(delivery(out, bench.poll(source, 20)), source.membership())
        for _ in range(3):
            if bench.values(out) or trouble is lost_request:
                break
        delivered = sink.abort()
        assert delivered == (1 if bench.values(out) else 0)
        assert bool(bench.committed(group, topic)) == bool(delivered)

    @pytest.mark.parametrize("method", ["produce", "send_offsets", "flush", "abort"])
    def test_a_producer_that_breaks_before_the_commit_is_replaced(
        self, bench: Bench, parts: tuple[str, str, str], method: str
    ) -> None:
        topic, out, group = parts
        source = bench.source(group, topic)
        sink = bench.sink(group, topic, wrap=Trouble(method, lost_request))
        polled = bench.poll(source, 20)
        sink.submit(delivery(out, polled, mark=b"void "), source.membership())
        if method == "abort":
            assert sink.abort() == 0
        else:
            with pytest.raises(AbortedError):
                bench.complete(sink)
        bench.until(sink.has_room)
        sink.submit(delivery(out, polled), source.membership())
        bench.complete(sink)
        assert bench.values(out) == numbered(20)


class TestAtLeastOnce:
    def test_what_is_acknowledged_is_there_and_the_source_commits(self, bench: Bench) -> None:
        topic, out, group = bench.topic(partitions=2), bench.topic("out", partitions=2), bench.group()
        bench.write(topic, numbered(100), keys=numbered(100))
        source, sink = bench.source(group, topic, exactly_once=False), bench.at_least_once_sink(topic)
        polled = bench.poll(source, 100)
        whole = delivery(out, polled)
        sink.submit(whole, source.membership())
        bench.complete(sink)
        assert sorted(v or b"" for v in bench.values(out)) == numbered(100)
        source.commit(whole.positions)
        bench.until(lambda: bench.committed(group, topic) == dict(whole.positions), source)
        source.close(5.0)
        assert bench.source(group, topic).poll(10, 0.3) is None

    def test_several_deliveries_complete_in_order(self, bench: Bench) -> None:
        topic, out, group = bench.topic(), bench.topic("out"), bench.group()
        sink = bench.at_least_once_sink(topic)
        for number in range(5):
            assert sink.has_room()
            values: list[bytes | None] = list(numbered(200, number * 200))
            outgoing = Outgoing(
                topic=out, keys=[None] * 200, values=values, partitions=np.zeros(200, np.int32)
            )
            sink.submit(Delivery(outgoing=[outgoing], positions={0: number}), object())
        bench.complete(sink, 5)
        assert bench.values(out) == numbered(1000)
        assert group

    def test_headers_go_with_their_messages_in_order(self, bench: Bench) -> None:
        topic, out = bench.topic(), bench.topic("out")
        sink = bench.at_least_once_sink(topic)
        values: list[bytes | None] = list(numbered(10))
        headers: list[Headers] = [
            [("trace", b"%d" % place), ("none", None)] if place % 3 else () for place in range(10)
        ]
        outgoing = Outgoing(
            topic=out, keys=[b"k"] * 10, values=values, partitions=np.zeros(10, np.int32), headers=headers
        )
        sink.submit(Delivery(outgoing=[outgoing], positions={0: 10}), object())
        bench.complete(sink)
        assert bench.values(out) == numbered(10)
        found = [list(records.headers(place)) for records in bench.read(out) for place in range(len(records))]
        assert found == [list(each) for each in headers]
        assert all(records.any_headers() for records in bench.read(out))

    def test_a_topic_to_which_nothing_goes_is_no_trouble(self, bench: Bench) -> None:
        topic, out = bench.topic(partitions=3), bench.topic("out", partitions=3)
        sink = bench.at_least_once_sink(topic)
        nothing = Outgoing(topic=out, keys=[], values=[], partitions=np.zeros(0, np.int32))
        one = Outgoing(topic=out, keys=[b"k"], values=[b"v"], partitions=np.zeros(1, np.int32))
        sink.submit(Delivery(outgoing=[nothing, one], positions={0: 1}), object())
        bench.complete(sink)
        assert bench.values(out) == [b"v"]

    def test_abort_empties_the_sink(self, bench: Bench) -> None:
        topic, out = bench.topic(), bench.topic("out")
        sink = bench.at_least_once_sink(topic)
        values: list[bytes | None] = list(numbered(10))
        outgoing = Outgoing(topic=out, keys=[None] * 10, values=values, partitions=np.zeros(10, np.int32))
        sink.submit(Delivery(outgoing=[outgoing], positions={0: 10}), object())
        assert sink.abort() in (0, 1)
        assert sink.has_room()
        assert sink.advance(0.0) == 0
        sink.submit(Delivery(outgoing=[outgoing], positions={0: 10}), object())
        bench.complete(sink)
        found = bench.values(out)
        assert found in (numbered(10), numbered(10) * 2)

    def test_a_message_that_is_too_long_is_refused_by_name(self, bench: Bench) -> None:
        if type(bench).__name__ == "MemoryBench":
            pytest.skip("the memory broker has no limit on a message")
        topic, out = bench.topic(), bench.topic("out")
        sink = bench.at_least_once_sink(topic)
        outgoing = Outgoing(topic=out, keys=[None], values=[bytes(3 << 20)], partitions=np.zeros(1, np.int32))
        sink.submit(Delivery(outgoing=[outgoing], positions={0: 1}), object())
        with pytest.raises(ConfigError, match=r"message\.max\.bytes"):
            bench.complete(sink)


def test_a_message_that_is_too_long_aborts_the_transaction_and_is_named(bench: Bench) -> None:
    if type(bench).__name__ == "MemoryBench":
        pytest.skip("the memory broker has no limit on a message")
    topic, out, group = bench.topic(), bench.topic("out"), bench.group()
    bench.write(topic, numbered(3))
    source, sink = bench.source(group, topic), bench.sink(group, topic)
    polled = bench.poll(source, 3)
    good = delivery(out, polled)
    long = Outgoing(topic=out, keys=[None], values=[bytes(3 << 20)], partitions=np.zeros(1, np.int32))
    positions: Mapping[int, int] = good.positions
    sink.submit(Delivery(outgoing=[*good.outgoing, long], positions=positions), source.membership())
    with pytest.raises(ConfigError, match=r"message\.max\.bytes"):
        bench.complete(sink)
    assert bench.values(out) == []
