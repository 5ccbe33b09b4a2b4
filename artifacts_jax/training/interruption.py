"""What stops a program from outside, noted such that the loop can save its state first."""

import signal
from types import FrameType

# What schedulers, terminals and people stop a program with.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class Interruption:
    """Notes SIGNALS as `asked` while it is a context; a second signal ends the process at once."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self._before = {s: self._take(s) for s in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)

    def _take(self, number):
        if signal.getsignal(number) == signal.SIG_IGN:  # as nohup has it of SIGHUP
            return None
        try:
            return signal.signal(number, self._note)
        except ValueError:  # only the main thread may set handlers; elsewhere (a notebook's worker) none is set
            return None

    def _note(self, number: int, frame: FrameType | None):
        self.asked = True
        for each in self._before:  # the system's own handling, which needs no Python
            signal.signal(each, signal.SIG_DFL)
