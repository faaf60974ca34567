"""Waits at the start until a cluster answers: what has to be loaded is loaded once, and the cause is said."""

from collections.abc import Callable
from typing import Final

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import ConfigError, UnavailableError

try_s: Final = 1.0
pause_s: Final = 0.25
refused_pause_s: Final = 1.0


def await_cluster(
    config: ClientConfig, *, clock: Clock, stopping: Callable[[], bool], waiting: Callable[[str, float], None]
) -> bool:
    """True as soon as a broker answers, False when `stopping` comes first, which is noticed within three seconds.

    `waiting` is told after each try why there is no answer, and for how many seconds there has been none. Raises
    ConfigError when the brokers refuse us, twice in a row: one that is starting or ending may break a log-in off.
    """
    began_s = clock.monotonic_s()
    refused = False
    while not stopping():
        try:
            # A new client each time: what one has found out about TLS holds for the broker that was there then.
            session = AdminSession(config, timeout_s=try_s)
            future = session.client.describe_cluster(request_timeout=try_s)
            session.answer(future, f"reach Kafka at {config.bootstrap_servers}")
        except UnavailableError as error:
            refused = False
            waiting(str(error), clock.monotonic_s() - began_s)
            clock.sleep(pause_s)
        except ConfigError:
            if refused:
                raise
            refused = True
            clock.sleep(refused_pause_s)
        else:
            return True
    return False
