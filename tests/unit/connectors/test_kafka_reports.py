"""Reports never get in the way of the records."""

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reports import ReportWriter, queue_messages_max


def test_reports_are_dropped_rather_than_waited_for_while_no_broker_answers() -> None:
    writer = ReportWriter(ClientConfig(bootstrap_servers="127.0.0.1:1"), "status")
    for _ in range(2 * queue_messages_max):
        writer.send(worker="w", payload=b"x" * 100)
    writer.close(timeout_s=0.0)
