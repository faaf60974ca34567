"""The two promises of a pipeline, as recording rules, and the alerts on how fast what they allow is used up.

A share of the time, or of the records, may be bad: that is the budget. A burn rate of 1 uses it up in the month it is meant for, one
of 14.4 in two days. Each alert asks for a long window, so that it means something, and for a short one, so that it ends with its cause.
"""

from typing import Any, Final

from penstock.engine.rules.alert import Alert, Severity, Terms, by, settled, total

windows: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_fast: Final = ((14.4, "1h", "5m"), (6, "6h", "30m"))
_slow: Final = ((3, "1d", "2h"), (1, "3d", "6h"))
rejected_floor: Final = 10
"""So many records set aside in the long window before completeness is said to burn: a quiet night has too few to judge by."""

age_over: Final = "penstock:age_over:bool"


def age_share(window: str) -> str:
    """The recorded share of the time in which the oldest unfinished record was older than it may be."""
    return f"penstock:age_over:ratio_{window}"


def rejected_share(window: str) -> str:
    """The recorded share of the records that were set aside."""
    return f"penstock:rejected:ratio_{window}"


def rejected_count(window: str) -> str:
    """The recorded number of records that were set aside."""
    return f"penstock:rejected:increase_{window}"


def recording_rules(terms: Terms) -> list[dict[str, Any]]:
    """What the alerts and the dashboard read; each carries the labels that tell pipelines apart, and no other."""
    # An age that is not known is no sample: NaN is unequal to itself, and as a comparison's side it would count as good.
    oldest = f"max by ({by}) ({terms.lag_seconds})"
    rules = [(age_over, f"({oldest} == {oldest}) > bool {terms.max_age_s}")]
    rules += [(age_share(window), f"avg_over_time({age_over}[{window}])") for window in windows]
    rejected = 'penstock_records_total{outcome="rejected"}'
    every = f"penstock_records_total{{{settled}}}"
    rules += [
        (rejected_share(window), f"{total(rejected, window)} / {total(every, window)}") for window in windows
    ]
    rules += [
        (rejected_count(window), total(rejected, window, function="increase"))
        for _, window, _ in (*_fast, *_slow)
    ]
    return [{"record": name, "expr": expr} for name, expr in rules]


def _age(pairs: tuple[tuple[float, str, str], ...], target: str) -> str:
    return " or ".join(
        f"({age_share(long)} > {rate:g} * (1 - {target}) and {age_share(short)} > {rate:g} * (1 - {target}))"
        for rate, long, short in pairs
    )


def _complete(pairs: tuple[tuple[float, str, str], ...], target: str) -> str:
    return " or ".join(
        f"({rejected_share(long)} > {rate:g} * (1 - {target}) and {rejected_share(short)} > {rate:g} * (1 - {target}) "
        f"and {rejected_count(long)} >= {rejected_floor})"
        for rate, long, short in pairs
    )


def burn_alerts(terms: Terms) -> list[Alert]:
    """Fast burning wakes someone, slow burning is for today."""
    age_cause = (
        f"Share of the time in which the oldest unfinished record was older than {terms.max_age_s} s; {terms.age_target} of it may "
        "not be. Too few workers, a partition that stands still, or a dependency that is away."
    )
    complete_cause = (
        f"Share of the records that were set aside instead of predicted; {terms.complete_target} of them may not be. One reason "
        "usually stands out: a writer that changed, a schema, or a model that fails on them."
    )
    return [
        Alert(
            name="PenstockAgeBurnsFast",
            severity=Severity.PAGE,
            expr=_age(_fast, terms.age_target),
            held="2m",
            summary="Records were too old in {{ $value | humanizePercentage }} of the time lately; what is allowed for a month is gone in days.",
            cause=age_cause,
            command="penstock lag penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockAgeBurnsSlowly",
            severity=Severity.TICKET,
            expr=_age(_slow, terms.age_target),
            held="15m",
            summary="Records were too old in {{ $value | humanizePercentage }} of the last day or days, more than is allowed.",
            cause=age_cause,
            command="penstock doctor penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockCompletenessBurnsFast",
            severity=Severity.PAGE,
            expr=_complete(_fast, terms.complete_target),
            held="2m",
            summary="{{ $value | humanizePercentage }} of the records went to the dead letters lately; what is allowed for a month is gone in days.",
            cause=complete_cause,
            command="penstock dlq list penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockCompletenessBurnsSlowly",
            severity=Severity.TICKET,
            expr=_complete(_slow, terms.complete_target),
            held="15m",
            summary="{{ $value | humanizePercentage }} of the records of the last day or days went to the dead letters, more than is allowed.",
            cause=complete_cause,
            command="penstock dlq list penstock.yaml",
            hinted=True,
        ),
    ]
