"""The metrics of the supervisor."""

from penstock.engine.telemetry.metric_declarations import MetricSet, counter, gauge

audit_events = ("started", "refused", "allowed", "done", "failed", "unrecorded", "lost", "stopped")


class SupervisorMetrics(MetricSet):
    """The metrics of the process that keeps the workers running."""

    workers_running = gauge("penstock_workers_running", "Worker processes that run now.")
    scrape_seconds = counter(
        "penstock_scrape_seconds_total",
        "What gathering the workers' metrics for a scrape takes of the supervisor.",
    )
    dropped_connections = counter(
        "penstock_http_dropped_connections_total",
        "Connections of the HTTP port that were closed unanswered, because too many were open or waited.",
    )
    log_lines_held = counter(
        "penstock_supervisor_log_lines_held_total",
        "Likewise of the supervisor's own log; see penstock_log_lines_held_total.",
    )
    worker_restarts = counter("penstock_worker_restarts_total", "Worker processes that were replaced.")
    fenced = gauge(
        "penstock_fenced",
        "1 after another process took over this one's identity, until this one ends, a scrape or two later.",
    )
    audit_events = counter(
        "penstock_audit_events_total",
        "What was asked for over HTTP, by what became of it; unrecorded: refusals that came too fast for a record each; lost: records that the audit topic did not take.",
        {"event": audit_events},
    )
