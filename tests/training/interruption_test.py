import os
import signal

import pytest

from artifacts_jax.training.interruption import SIGNALS, Interruption


@pytest.mark.parametrize('number', SIGNALS)
def test_every_stop_signal_sets_the_flag(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption.stop_requested
        os.kill(os.getpid(), number)
        assert interruption.stop_requested
        assert all(signal.getsignal(n) == signal.SIG_DFL for n in SIGNALS)  # a second one ends the process
    assert signal.getsignal(number) == before


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_signal_ends_the_process_at_once():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert not interruption.stop_requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.stop_requested
        assert {signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_DFL}
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
