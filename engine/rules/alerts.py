"""Every alert of a pipeline, beside those on its two promises: what happened, the cause in words, the command that shows it."""

from collections.abc import Sequence

from penstock.engine.rules.alert import Alert, Severity, Terms, by, settled, total
from penstock.engine.rules.burn_rate import burn_alerts

_rejected = "penstock_rejected_records_total"
_every = f"penstock_records_total{{{settled}}}"
_over_budget = 'penstock_unexplained_records_total{reason="budget"}'
_predicted = 'penstock_records_total{outcome="predicted"}'
_aborted = 'penstock_deliveries_total{outcome="aborted"}'
_lost_audit = 'penstock_audit_events_total{event="lost"}'
_process = '{job=~".*penstock.*"}'


def alerts(terms: Terms) -> list[Alert]:
    """All of them, those that ask for a scaler only where one is scraped."""
    found = [*burn_alerts(terms), *_records(terms), *_workers(terms)]
    return [*found, *_scaler()] if terms.scaler else found


def _records(terms: Terms) -> Sequence[Alert]:
    place = f"{by}, topic, partition"
    return (
        Alert(
            name="PenstockRecordsTooOld",
            severity=Severity.PAGE,
            expr=f"max by ({by}) ({terms.lag_seconds}) > 2 * {terms.max_age_s}",
            held="5m",
            summary="The oldest unfinished record has waited for {{ $value | humanizeDuration }}.",
            cause=f"Twice the {terms.max_age_s} s of scaling.max_age_s. More arrives than the workers do, or a partition stands still; the "
            "table names the partition, its owner, and whether it moves.",
            command="penstock lag penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockPartitionStuck",
            severity=Severity.PAGE,
            expr=f"max by ({place}) (deriv({terms.lag_seconds}[10m])) > 0.9 "
            f"and min by ({place}) (min_over_time({terms.lag_records}[10m])) > 0",
            held="5m",
            summary="Partition {{ $labels.partition }} of {{ $labels.topic }} does not move.",
            cause="Its oldest record ages as fast as time passes, so nothing of it was finished: its owner hangs, waits for something, or "
            "nobody owns it.",
            command="penstock lag penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockPartitionHeld",
            severity=Severity.PAGE,
            expr=f'sum by ({by}, state) (penstock_held_partitions{{state="waits"}}) > 0',
            held="5m",
            summary="{{ $value }} partitions wait for something remote, while others go on.",
            cause="Mostly a schema that the registry does not give; waits_for in the worker's /status says for what, and since when.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockPoison",
            severity=Severity.PAGE,
            expr=f'sum by ({by}) (penstock_held_partitions{{state="stopped"}}) > 0',
            held="1m",
            summary="{{ $value }} partitions were stopped: nearly all of their records are bad.",
            cause="More than dead_letters.run_max bad records in a row, or than share_max of the last ones. That is hardly the records: a "
            "writer, a schema or the model changed. The log and /status name the first offset.",
            command="penstock dlq list penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockKillerRecord",
            severity=Severity.WATCH,
            expr=f'sum by ({by}) (increase({_rejected}{{reason="killed_worker"}}[1h])) > 0',
            summary="A record killed its worker twice and was set aside.",
            cause="Native code or the model ends the process on it, or does not come back from it. Its dead letter holds the record.",
            command="penstock dlq list penstock.yaml --reason killed_worker",
        ),
        Alert(
            name="PenstockManyRejected",
            severity=Severity.TICKET,
            expr=f"{total(_rejected, '10m', labels=f'{by}, reason')} / on ({by}) group_left "
            f"{total(_every, '10m')} > 0.01",
            held="10m",
            summary="{{ $value | humanizePercentage }} of the records go to the dead letters as {{ $labels.reason }}.",
            cause="What each reason means, and what mends it, stands in docs/contracts.md.",
            command="penstock dlq list penstock.yaml --reason {{ $labels.reason }}",
            hinted=True,
        ),
        Alert(
            name="PenstockInputStalled",
            severity=Severity.PAGE,
            expr=f"sum by ({by}) (penstock_stalled_partitions) > 0",
            held="5m",
            summary="{{ $value }} partitions hold records that cannot be read.",
            cause="The client fetches and gets nothing: mostly a batch that cannot be parsed. waits_for in /status names the offset.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockTransactionOpen",
            severity=Severity.TICKET,
            expr=f"sum by ({by}) (penstock_open_transaction_offsets) > 0",
            held="5m",
            summary="{{ $value }} offsets wait for the end of a producer's transaction.",
            cause="A producer upstream opened a transaction and does not end it; what lies behind it may never have happened. The broker "
            "aborts it by that producer's transaction.timeout.ms.",
            command="penstock lag penstock.yaml",
            hinted=True,
        ),
        Alert(
            name="PenstockExplanationsOverBudget",
            severity=Severity.WATCH,
            expr=f"{total(_over_budget, '10m')} / {total(_predicted, '10m')} > 0.05",
            held="10m",
            summary="{{ $value | humanizePercentage }} of the predictions go without their explanation: explain.budget_ms is spent.",
            cause="A deeper model, a larger background or batches that grew make explanations slower than the budget allows.",
            command="penstock check penstock.yaml",
            hinted=True,
        ),
    )  # fmt: skip


def _workers(terms: Terms) -> Sequence[Alert]:
    absent = "absent(penstock_ready)"
    if terms.scaler:
        wanted = f"max by ({by}) (penstock_required_replicas) > 0 unless on ({by}) penstock_ready"
        # Without a scaler nobody says how many there should be: then none is too few.
        absent = f"{wanted} or group by (namespace, release) (absent(penstock_ready) unless on () penstock_required_replicas)"
    return (
        Alert(
            name="PenstockWorkersAbsent",
            severity=Severity.PAGE,
            expr=absent,
            held="5m",
            summary="Workers are needed, and none is scraped.",
            cause="None is scheduled, none gets as far as its metrics, or Prometheus is kept out. What does not report raises no other alert.",
            command="penstock check penstock.yaml",
        ),
        Alert(
            name="PenstockFenced",
            severity=Severity.PAGE,
            expr=f"max by ({by}, instance, pod) (max_over_time(penstock_fenced[10m])) > 0",
            summary="A process was fenced: another one runs under the same identity.",
            cause="Two deployments share kafka.group and PENSTOCK_IDENTITY, and end each other in turns. No result is doubled; neither gets far.",
            command="penstock lag penstock.yaml",
        ),
        Alert(
            name="PenstockKafkaUnreachable",
            severity=Severity.PAGE,
            expr=f"min by ({by}) (penstock_broker_reachable) == 0",
            held="1m",
            summary="A worker has had no answer from Kafka for more than a minute.",
            cause="Its log names the address and the reason. It tries on, and goes on by itself; nothing is lost.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockNotReady",
            severity=Severity.TICKET,
            expr=f"min by ({by}, instance, pod, worker) (penstock_ready) == 0",
            held="10m",
            summary="A worker has not been ready for ten minutes.",
            cause="/ready says why: warming, joining its group, no partitions (more workers than partitions), Kafka away, or draining.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockDeliveriesAbort",
            severity=Severity.TICKET,
            expr=f"{total(_aborted, '10m', function='increase')} > 5",
            held="10m",
            summary="Deliveries are aborted again and again; records are computed more than once.",
            cause="Rebalances, brokers that answer slowly, or a transaction.timeout.ms below what a batch takes.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockWorkersDie",
            severity=Severity.PAGE,
            expr=f"{total('penstock_worker_restarts_total', '15m', function='increase')} > 2",
            summary="Worker processes die and are replaced.",
            cause="The supervisor's log names the signal. SIGKILL is mostly memory; others are faults of native code.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockCrashLoop",
            severity=Severity.PAGE,
            expr=f"max by ({by}, instance, pod) (changes(process_start_time_seconds{_process}[30m])) > 3",
            summary="The process of a pod starts again and again.",
            cause="Its last words are in `kubectl logs --previous`; the exit codes stand in docs/operations.md.",
            command="penstock check penstock.yaml",
        ),
        Alert(
            name="PenstockPodDown",
            severity=Severity.PAGE,
            expr=f"max by ({by}, instance, pod) (avg_over_time(up{_process}[15m])) < 0.5",
            held="10m",
            summary="A pod is there and hardly ever answers.",
            cause="It stops before it can be scraped (settings, model, permissions), or a network policy keeps Prometheus out.",
            command="penstock check penstock.yaml",
        ),
        Alert(
            name="PenstockAuditLost",
            severity=Severity.TICKET,
            expr=f"{total(_lost_audit, '1h', function='increase')} > 0",
            summary="{{ $value | printf \"%.0f\" }} records of what was done over HTTP are not in the audit topic.",
            cause="The topic of admin.audit_topic refused them: mostly a permission that was taken away, or a topic that is gone. They stand in "
            "the supervisor's log alone, each with its hash, until that is thrown away; the chain ended, and another begins.",
            command="penstock audit verify penstock.yaml",
        ),
        Alert(
            name="PenstockRebalancesOften",
            severity=Severity.TICKET,
            expr=f"{total('penstock_rebalances_total', '15m', function='increase')} / count by ({by}) (penstock_ready) > 8",
            held="20m",
            summary="The group rebalances all the time; every rebalance is a pause.",
            cause="Workers come and go, miss max.poll.interval.ms, or the scaler swings.",
            command="penstock lag penstock.yaml",
            hinted=True,
        ),
    )  # fmt: skip


def _scaler() -> Sequence[Alert]:
    limit = 'sum by (namespace, release, group, instance) (avg_over_time(penstock_scaling_bound{bound=~"maximum|partitions"}[15m]))'
    return (
        Alert(
            name="PenstockScalerBlind",
            severity=Severity.PAGE,
            expr=f"min by ({by}) (penstock_scaling_stale) == 1",
            held="5m",
            summary="No scaler can read the offsets; the number of workers is frozen.",
            cause="Its log says why: Kafka away, a permission, a topic that is gone. KEDA holds the number meanwhile.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockScalerGone",
            severity=Severity.PAGE,
            expr="group by (namespace, release) (absent(penstock_required_replicas) "
            f"or (penstock_workers_running unless on ({by}) penstock_required_replicas))",
            held="5m",
            summary="No scaler is scraped; the number of workers is frozen.",
            cause="It is not scheduled, it does not start, or Prometheus is kept out. Two replicas of it do no harm.",
            command="penstock check penstock.yaml",
        ),
        Alert(
            name="PenstockPartitionBeyondScaling",
            severity=Severity.TICKET,
            expr=f"max by ({by}) (penstock_scaling_unscalable_partitions) > 0 "
            f"or max by ({by}) (penstock_scaling_left_out_partitions) > 0",
            held="10m",
            summary="A partition gets more than one worker can do, or nobody gets on with it; more workers do not help.",
            cause="Keys that spread badly, or a record that nobody gets past. The scaler's log and /status name the partition.",
            command="penstock lag penstock.yaml",
        ),
        Alert(
            name="PenstockMoreWorkersDoNotHelp",
            severity=Severity.PAGE,
            expr=f'max by ({by}) (penstock_scaling_bound{{bound="ineffective"}}) > 0',
            held="1m",
            summary="The group grew twice and finished no more than before; no more workers are asked for.",
            cause="Something behind the workers is the limit: the brokers, a quota, the registry. The scaler's log has the numbers.",
            command="penstock doctor penstock.yaml",
        ),
        Alert(
            name="PenstockAtItsLimit",
            severity=Severity.TICKET,
            expr=f"max by ({by}) ({limit}) > 0.8",
            held="15m",
            summary="More workers are needed than max_replicas or the partitions allow.",
            cause="Traffic grew past scaling.max_replicas or the number of partitions; /status of the scaler says which.",
            command="penstock lag penstock.yaml",
        ),
    )  # fmt: skip
