"""Catches the signals that stop a program, so that the loop can save its state first."""

import signal
from types import FrameType

# The signals by which schedulers, terminals and users stop a program.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class Interruption:
    """A context manager that sets `stop_requested` at the first signal; a second signal ends the process at once."""

    def __init__(self):
        self.stop_requested = False

    def __enter__(self):
        self._previous = {s: self._install(s) for s in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            if handler is not None:
                signal.signal(number, handler)

    def _install(self, number):
        if signal.getsignal(number) == signal.SIG_IGN:  # such as SIGHUP under nohup
            return None
        try:
            return signal.signal(number, self._handle)
        except ValueError:  # only the main thread may set handlers; a worker thread of a notebook sets none
            return None

    def _handle(self, number: int, frame: FrameType | None):
        self.stop_requested = True
        # The default handler of the system works also while Python is busy.
        for other in self._previous:
            signal.signal(other, signal.SIG_DFL)
