"""Judging a call with bad arguments: it returns, or it says in one of our exceptions what was wrong."""

import contextlib
import signal

from searchlib.errors import SearchlibError

__all__ = ["LIMIT", "TookTooLong", "attempt", "within"]

#: Seconds of work that a call may take.
LIMIT = 2.0
#: So many times longer it may take on a busy machine.
_PATIENCE = 20


class TookTooLong(BaseException):
    """Not an Exception, so that nothing catches it on the way."""


@contextlib.contextmanager
def within(seconds):
    """Interrupt what takes more seconds of this process, or many times more on the clock."""

    def stop(number, frame):
        raise TookTooLong(f"more than {seconds} s")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, _PATIENCE * seconds)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def attempt(call, *, seconds=LIMIT):
    """What a call returns, and the refusal that it raised instead; anything else that it raises goes through."""
    with within(seconds):
        try:
            return call(), None
        except SearchlibError as refusal:
            return None, refusal
