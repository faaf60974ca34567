"""What goes wrong, drawn from one seed: which kinds of trouble a run has, and what becomes of each call."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """Kinds of trouble; each run has some of them (`--only` chooses among them)."""

    SLOW = "slow"  # calls that take long, up to longer than anybody waits
    ABORTED = "aborted"  # messages and transactions that the broker does not take
    UNKNOWN = "unknown"  # requests and answers lost, late or doubled
    FENCED = "fenced"  # a twin with the same identity
    CRASH = "crash"  # workers killed, stopped and started
    FREEZE = "freeze"  # workers that stand still for longer than a session, and go on
    REBALANCE = "rebalance"  # members that come, go and are expelled, in the middle of a poll as well
    TOPIC = "topic"  # partitions added, the topic deleted and made anew
    READING = "reading"  # client errors after which its position is elsewhere; bytes that cannot be read
    RETENTION = "retention"  # records deleted before they were read; commits beyond the end
    FOREIGN = "foreign"  # producers with transactions on the input: open, committed, aborted
    POISON = "poison"  # records that fail at every stage
    SCHEMAS = "schemas"  # something remote that decoding needs cannot be had for a while


class Fate(StrEnum):
    """What becomes of one request to the broker."""

    FINE = "fine"
    LOST = "lost"  # it never arrives
    UNANSWERED = "unanswered"  # it is carried out, and the answer is lost
    LATE = "late"  # it arrives when nobody waits for it any more
    DOUBLED = "doubled"  # it is carried out, and its repetition arrives later
    REFUSED = "refused"  # the transaction cannot go on
    DENIED = "denied"  # a permission is missing
    FENCED = "fenced"  # a twin comes first


slow_s = (0.05, 0.05, 0.05, 0.3, 0.3, 0.3, 0.3, 1.0, 1.0, 2.5, 2.5, 30.0)
"""How long a slow call takes; the last of them longer than anybody waits for one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: what becomes of it, when it is carried out, and when its caller knows (seconds from now)."""

    fate: Fate
    acts_s: float
    ends_s: float


calm_call = Call(Fate.FINE, 0.0005, 0.001)


class Fates:
    """All chance of a run. Nothing happens by it any more once `calm` is set."""

    def __init__(self, seed: int, only: frozenset[Trouble] = frozenset()) -> None:
        self.random = random.Random(seed)
        self.calm = False
        self.troubled = False  # something happened after which at least once may mean twice
        drawn = self.random
        kinds = sorted(only) if only else list(Trouble)
        # Each run has a few kinds of trouble: all at once would seldom let anything come to its end.
        self.troubles = frozenset(kind for kind in kinds if drawn.random() < 0.4 or only)
        self.intensity = drawn.choice([0.3, 1.0, 1.0, 3.0])

    def chance(self, share: float, kind: Trouble) -> bool:
        """Whether trouble of this kind comes now."""
        if self.calm or kind not in self.troubles:
            return False
        return self.random.random() < share * self.intensity

    def disturbed(self) -> None:
        """From now on a record may come twice, where the promise is at least once."""
        self.troubled = True

    def call(self, *, transactional: bool, twins: bool = True) -> Call:
        """What becomes of a request."""
        drawn = self.random
        if self.calm:
            return calm_call
        takes_s = drawn.choice((0.001, 0.002, 0.004))
        if self.chance(0.08, Trouble.SLOW):
            takes_s = drawn.choice(slow_s)
            self.disturbed()  # what is given up for being slow is done again
        fate = Fate.FINE
        if self.chance(0.03, Trouble.UNKNOWN):
            fate = drawn.choice((Fate.LOST, Fate.UNANSWERED, Fate.LATE, Fate.DOUBLED))
        elif self.chance(0.03, Trouble.ABORTED) and transactional:
            fate = Fate.REFUSED if drawn.random() < 0.95 else Fate.DENIED
        elif twins and self.chance(0.004, Trouble.FENCED):
            fate = Fate.FENCED
        if fate is not Fate.FINE:
            self.disturbed()
        return Call(fate, takes_s * drawn.random(), takes_s)
