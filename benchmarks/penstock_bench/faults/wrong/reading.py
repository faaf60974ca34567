"""Wrong versions of reading: errors, positions, topics, where a group begins."""

from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.wrong.versions import Bug

_reading = (Trouble.READING,)
_topic = (Trouble.TOPIC,)
_start = (Trouble.CRASH, Trouble.REBALANCE)

bugs: tuple[Bug, ...] = (
    Bug(
        name="an error report is passed over although the position moved",
        where="KafkaSource._records",
        old="self._returns.send_back(partition, message)",
        new="pass",
        only=_reading,
    ),
    Bug(
        name="records behind an error of their partition are taken",
        where="Returns.without_errors",
        old="if partition not in broken:",
        new="if True:",
        only=_reading,
    ),
    Bug(
        name="what comes from behind a seek is taken",
        where="ReadHeads._sort_out",
        old="if offset < self._next[partition]:",
        new="if False:",
        only=(Trouble.READING, Trouble.REBALANCE, Trouble.ABORTED),
    ),
    Bug(
        name="a member that waited for its coordinator does not join again",
        where="Rejoin.turn",
        old="self._subscribe()",
        new="pass",
        only=(Trouble.REBALANCE,),
    ),
    Bug(
        name="offsets are committed without the topic's id",
        where="offset_note",
        old="topic_id is None",
        new="True",
        only=(Trouble.TOPIC, Trouble.CRASH),
    ),
    Bug(
        name="a committed offset is believed whatever topic it is of",
        where="Starts._found",
        old="noted is None or facts.id is None or noted == facts.id",
        new="True",
        only=(Trouble.TOPIC, Trouble.CRASH),
    ),
    Bug(
        name="a topic made anew under a running worker is not noticed",
        where="KafkaSource._compare_topic",
        old="if old is None or",
        new="if True or old is None or",
        only=_topic,
    ),
    Bug(
        name="what was deleted of a new partition before it was read is not said",
        where="Beginnings.turn",
        old="if missing > 0:",
        new="if False:",
        only=(Trouble.TOPIC, Trouble.RETENTION, Trouble.CRASH),
    ),
    Bug(
        name="records of a new partition are taken before it is known what was deleted before them",
        where="KafkaSource._records",
        old="if self._beginnings and messages:",
        new="if False:",
        only=(Trouble.TOPIC, Trouble.RETENTION, Trouble.CRASH, Trouble.SLOW),
    ),
    Bug(
        name="where a log begins that lacks our next offset is asked once",
        where="KafkaSource._give_up",
        old="now_s - since_s < bounds_patience_s",
        new="False",
        only=(Trouble.RETENTION, Trouble.SLOW),
    ),
    Bug(
        name="`latest` is applied to partitions that appear later",
        where="Starts._by_the_group",
        old="if any(place.offset >= 0 for place in everywhere):",
        new="if all(place.offset >= 0 for place in everywhere):",
        only=(Trouble.TOPIC, Trouble.CRASH),
        start="latest",
    ),
    Bug(
        name="where a group begins is decided again while its commit is on its way",
        where="Starts._by_the_group",
        old="self._fresh = False",
        new="self._fresh, self._places = False, None",
        only=(Trouble.SLOW, Trouble.RETENTION),
        mode="at_least_once",
        start="latest",
    ),
    Bug(
        name="a seek that the client cannot do yet is dropped",
        where="KafkaSource.seek",
        old="self._seek_due[partition] = offset",
        new="pass",
        only=(Trouble.READING, Trouble.ABORTED, Trouble.REBALANCE),
    ),
    Bug(
        name="records pass before a seek that is due",
        where="KafkaSource._records",
        old="stale = self._seek_due.keys() | (present - self._ours.owned)",
        new="stale = (present - self._ours.owned)",
        only=(Trouble.READING, Trouble.ABORTED),
    ),
    Bug(
        name="what retention took is passed over without a word",
        where="KafkaSource._give_up",
        old="self._member.fail(ConfigError(sentence))",
        new="self._heads.put(partition, 0); self._returns.read_from(partition, OFFSET_BEGINNING)",
        only=(Trouble.RETENTION, Trouble.FREEZE),
    ),
    Bug(
        name="a commit that was refused is not made again",
        where="Commits.answered",
        old="self._due_s = self._due_s or self._clock.monotonic_s() + again_after_s",
        new="pass",
        only=(Trouble.UNKNOWN, Trouble.REBALANCE),
        mode="at_least_once",
    ),
    Bug(
        name="bytes that cannot be read leave no letter",
        where="Returns.turn",
        old="return Records.join([self._row(partition, passed, topic_id) for partition, passed in some])",
        new="return None",
        only=_reading,
    ),
    Bug(
        name="one offset too many is set aside as unreadable",
        where="Returns.pass_over",
        old="self._passed.append((partition, broken))",
        new="broken = type(broken)(first=broken.first, next=broken.next + 1, why=''); self._passed.append((partition, broken))",
        only=_reading,
    ),
    Bug(
        name="a partition is not let go on after an error",
        where="Returns._release",
        old="if places:",
        new="if False:",
        only=_reading,
    ),
    Bug(
        name="reading returns one record too far after an error",
        where="Returns.read_from",
        old="self._ours.give_anew(partition, offset,",
        new="self._ours.give_anew(partition, offset + 1,",
        only=_reading,
    ),
)
