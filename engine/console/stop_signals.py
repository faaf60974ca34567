"""Which signals ask a process of ours to stop."""

import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGINT, and SIGHUP, by which a terminal that goes away takes leave, unless whoever started us has us pass over that
    one (nohup): a process that simply died of it would leave its temporary folder behind, and its workers to find out."""
    hung_up = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ()
    return signal.SIGTERM, signal.SIGINT, *hung_up
