"""The dashboards for Grafana: how the pipeline is, and how it keeps its promises."""

from typing import Any

from penstock.engine.rules.alert import Terms, settled
from penstock.engine.rules.burn_rate import age_over, age_share, rejected_share, windows
from penstock.engine.rules.panels import Panel, dashboard

_every = f"penstock_records_total{{{settled}}}"


def dashboards(terms: Terms) -> list[dict[str, Any]]:
    """Both, as Grafana imports them."""
    rows = {
        "Is it well?": _well(terms),
        "The stream": _stream(terms),
        "Inside a worker": _worker(),
        "Trouble": _trouble(),
    }
    if terms.scaler:
        rows["Scaling"] = _scaling()
    return [
        dashboard(uid="penstock", title="Penstock", rows=rows),
        dashboard(
            uid="penstock-objective",
            title="Penstock: what is promised",
            rows=_objective(terms),
            span="now-3d",
        ),
    ]


def _quantile(quantile: float, metric: str, window: str) -> str:
    return f"histogram_quantile({quantile:g}, sum by (le) (rate({metric}_bucket[{window}])))"


def _mean(metric: str, by: str = "") -> str:
    group = f" by ({by}) " if by else ""
    return f"sum{group}(rate({metric}_sum[$__rate_interval])) / sum{group}(rate({metric}_count[$__rate_interval]))"


def _well(terms: Terms) -> list[Panel]:
    stats = [
        Panel(
            title="Records per second", about="Delivered, with whatever outcome.",
            queries={"records/s": f"sum(rate({_every}[1m]))"},
        ),
        Panel(
            title="Oldest unfinished record", unit="s",
            about=f"Age of the oldest record that no worker has finished; none should become older than {terms.max_age_s} s.",
            queries={"age": f"max({terms.lag_seconds})"},
        ),
        Panel(
            title="End to end, p99", unit="s", about="Input timestamp to acknowledged output.",
            queries={"p99": _quantile(0.99, "penstock_end_to_end_seconds", "5m")},
        ),
        Panel(
            title="Rejected", unit="percentunit", about="Share of records that went to the dead letters.",
            queries={"share": f'sum(rate(penstock_records_total{{outcome="rejected"}}[5m])) / sum(rate({_every}[5m]))'},
        ),
        Panel(
            title="Workers ready", about="Workers that are assigned, verified and warmed.",
            queries={"ready": "sum(penstock_ready)"},
        ),
    ]  # fmt: skip
    if terms.scaler:
        stats.append(
            Panel(
                title="Workers needed",
                about="What the scaler publishes to KEDA.",
                queries={"needed": "max(penstock_required_replicas)"},
            )
        )
    return [each.as_stat(width=4) for each in stats]


def _stream(terms: Terms) -> list[Panel]:
    latency = "penstock_end_to_end_seconds"
    return [
        Panel(
            title="Records by outcome", about="Explained records are counted among the predicted ones too.",
            queries={"{{outcome}}": "sum by (outcome) (rate(penstock_records_total[$__rate_interval]))"},
        ),
        Panel(
            title="Latency end to end", unit="s", about="Input timestamp to acknowledged output.",
            queries={f"p{100 * each:g}": _quantile(each, latency, "$__rate_interval") for each in (0.5, 0.99, 0.999)},
        ),
        Panel(
            title="Lag by partition", about="Records that are not finished yet.",
            queries={"{{topic}} {{partition}}": f"max by (topic, partition) ({terms.lag_records})"},
        ),
        Panel(
            title="Age by partition", unit="s", about="Age of the oldest unfinished record.",
            queries={"{{topic}} {{partition}}": f"max by (topic, partition) ({terms.lag_seconds})"},
        ),
    ]  # fmt: skip


def _worker() -> list[Panel]:
    return [
        Panel(
            title="Time per batch by stage", unit="s", about="Mean duration of each stage.",
            queries={"{{stage}}": _mean("penstock_stage_seconds", "stage")},
        ),
        Panel(
            title="Batch size", about="Mean records in a batch.", queries={"records": _mean("penstock_batch_rows")}
        ),
        Panel(
            title="Why batches are closed",
            about="Idle: nothing was being computed. Full: the size limit. Cost, deadline: one more would break the objective.",
            queries={"{{reason}}": "sum by (reason) (rate(penstock_batches_total[$__rate_interval]))"},
        ),
        Panel(
            title="Busy", unit="percentunit", about="Share of time the compute side works.",
            queries={"{{instance}} {{worker}}": "rate(penstock_busy_seconds_total[$__rate_interval])"},
        ),
        Panel(
            title="Waiting records", about="Where they wait.",
            queries={"{{queue}}": "sum by (queue) (penstock_queue_rows)"},
        ),
        Panel(
            title="Longest gaps of the polling loop, p99", unit="s", about="Past max.poll.interval.ms the partitions are lost.",
            queries={"p99": _quantile(0.99, "penstock_poll_gap_seconds", "5m")},
        ),
        Panel(
            title="Rejected by reason", about="Dead letters per second.",
            queries={"{{reason}}": "sum by (reason) (rate(penstock_rejected_records_total[5m])) > 0"},
        ),
        Panel(
            title="Memory", unit="bytes", about="Resident memory.",
            queries={"{{instance}} {{worker}}": 'process_resident_memory_bytes{job=~".*penstock.*"}'},
        ),
    ]  # fmt: skip


def _trouble() -> list[Panel]:
    return [
        Panel(
            title="Rebalances, rewinds, aborts, restarts", width=8, about="Each costs a pause or computes records again.",
            queries={
                "rebalances": "sum(increase(penstock_rebalances_total[5m]))",
                "rewinds: {{cause}}": "sum by (cause) (increase(penstock_rewinds_total[5m]))",
                "aborted deliveries": 'sum(increase(penstock_deliveries_total{outcome="aborted"}[5m]))',
                "worker restarts": "sum(increase(penstock_worker_restarts_total[5m]))",
            },
        ),
        Panel(
            title="What stands still", width=8, about="Partitions that wait for something remote, were stopped, or cannot be read; offsets behind an open transaction.",
            queries={
                "{{state}}": "sum by (state) (penstock_held_partitions)",
                "stalled": "sum(penstock_stalled_partitions)",
                "behind a transaction": "sum(penstock_open_transaction_offsets)",
            },
        ),
        Panel(
            title="Models", width=8, about="Which model runs where.",
            queries={"{{name}} {{version}} on {{device}}": "count by (name, version, device) (penstock_model_info)"},
        ),
        Panel(
            title="Without an explanation", width=8, about="Predictions that the policy passed over, or for which the budget was spent.",
            queries={"{{reason}}": "sum by (reason) (rate(penstock_unexplained_records_total[5m]))"},
        ),
        Panel(
            title="Slow paths", width=8, about="Records decoded by the reference path.",
            queries={"reference decoder": "sum(rate(penstock_reference_decoded_records_total[5m]))"},
        ),
        Panel(
            title="Kafka", unit="s", width=8, about="Time since the cluster last answered; it is asked once a second.",
            queries={"answered": "max(penstock_broker_answer_age_seconds)"},
        ),
    ]  # fmt: skip


def _scaling() -> list[Panel]:
    return [
        Panel(
            title="Needed and its terms",
            about="Needed = rate term + drain term, rounded up, within the bounds, held on the way down.",
            queries={
                "needed": "max(penstock_required_replicas)",
                "rate term": "max(penstock_scaling_rate_term_replicas)",
                "drain term": "max(penstock_scaling_drain_term_replicas)",
                "workers that report": "max(penstock_scaling_workers_reporting)",
            },
        ),
        Panel(
            title="Arrivals and capacity", about="Per second; capacity is of one worker.",
            queries={
                "arrivals": "max(penstock_scaling_arrival_records_per_second)",
                "capacity of one": "max(penstock_scaling_capacity_records_per_second)",
            },
        ),
        Panel(
            title="What decided", about="The bound in force.",
            queries={"{{bound}}": "max by (bound) (penstock_scaling_bound) > 0"},
        ),
        Panel(
            title="Age of the signal", unit="s", about="Time since the offsets were read; past 15 s KEDA is told to hold.",
            queries={"age": "max(penstock_scaling_signal_age_seconds)"},
        ),
    ]  # fmt: skip


def _objective(terms: Terms) -> dict[str, list[Panel]]:
    age_budget, complete_budget = f"(1 - {terms.age_target})", f"(1 - {terms.complete_target})"
    return {
        "Age": [
            Panel(
                title="Older than promised", width=12, unit="bool_yes_no",
                about=f"Whether the oldest unfinished record is older than {terms.max_age_s} s.",
                queries={"{{release}} {{group}}": age_over},
            ),
            Panel(
                title="Burn rate of the age", width=12,
                about="1 uses up in a month what is allowed for it; past 14.4 in an hour someone is woken.",
                queries={window: f"max({age_share(window)}) / {age_budget}" for window in windows},
            ),
        ],
        "Completeness": [
            Panel(
                title="Set aside", width=12, unit="percentunit", about="Share of the records that became dead letters instead of predictions.",
                queries={window: f"max({rejected_share(window)})" for window in ("5m", "1h", "1d")},
            ),
            Panel(
                title="Burn rate of completeness", width=12,
                about="1 uses up in a month what is allowed for it; past 14.4 in an hour someone is woken.",
                queries={window: f"max({rejected_share(window)}) / {complete_budget}" for window in windows},
            ),
        ],
    }  # fmt: skip
