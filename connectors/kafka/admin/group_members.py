"""Who is in a consumer group, and what this user may do with it: asked again while the brokers are settling."""

import time

from penstock.connectors.kafka.admin.session import retry_s
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.wire import groups
from penstock.connectors.kafka.wire.groups import GroupView
from penstock.schemas.errors import UnavailableError


def describe_group(config: ClientConfig, group: str, *, timeout_s: float = 10.0) -> GroupView:
    """Needs Describe on the group. Raises UnavailableError when nobody answers in time, ConfigError when it is refused.

    Asked by hand: librdkafka's call may end the process that makes it (penstock.connectors.kafka.wire.groups).
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return groups.describe_group(config, group)
        except UnavailableError:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(retry_s)
