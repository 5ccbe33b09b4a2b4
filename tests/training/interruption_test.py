import os
import signal

import pytest

from artifacts_jax.training.interruption import SIGNALS, Interruption


@pytest.mark.parametrize('number', SIGNALS)
def test_every_signal_that_stops_programs_is_noted_once(number):
    before = signal.getsignal(number)
    with Interruption() as noted:
        assert not noted.stop_requested
        os.kill(os.getpid(), number)
        assert noted.stop_requested
        assert all(signal.getsignal(n) == signal.SIG_DFL for n in SIGNALS)  # a second one ends the process
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with Interruption() as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not noted.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_is_the_systems_which_ends_at_once():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption() as noted:
        assert not noted.stop_requested
        os.kill(os.getpid(), signal.SIGINT)
        assert noted.stop_requested
        assert {signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_DFL}
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
