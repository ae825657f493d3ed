"""Ctrl-C during training: when it is heeded, and by whom. What a user sees of it is in test_command_line.py."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from image_factory import options, two_domains

from data import create_dataset
from util.signals import STOP_SIGNALS, DeferredInterrupt, Terminated


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_until_the_program_can_stop() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt() as interrupt:
        for step in range(3):
            if step == 1:
                press_ctrl_c()
            steps.append(step)
            interrupt.raise_if_requested()
    assert steps == [0, 1]


def test_an_interrupt_in_the_last_step_is_not_lost() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
        press_ctrl_c()
        done = True
    assert done


def test_a_second_interrupt_does_not_wait() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
        press_ctrl_c()
        press_ctrl_c()
        done = True
    assert not done


def test_a_second_interrupt_does_not_disturb_the_end() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt() as interrupt:
        press_ctrl_c()
        try:
            interrupt.raise_if_requested()
        finally:
            press_ctrl_c()
            done = True
    assert done
    assert interrupt.forced


def test_more_interrupts_are_ignored_where_several_processes_are_asked_again_and_again() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt(ignore_repeats=True) as interrupt:
        press_ctrl_c()
        press_ctrl_c()
        done = True
    assert done
    assert not interrupt.forced


def test_what_else_ends_the_program_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="the cause"), DeferredInterrupt():
        press_ctrl_c()
        raise ValueError("the cause")


def test_afterwards_interrupts_are_what_they_were() -> None:
    before = signal.getsignal(signal.SIGINT)
    with DeferredInterrupt():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU, signal.SIGTERM])
def test_a_scheduler_may_repeat_its_signal(number: signal.Signals) -> None:
    done = False
    with pytest.raises(Terminated, match=number.name), DeferredInterrupt():
        for _ in range(3):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None], ids=["nohup", "handled"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_are_ignored_or_handled_are_left_alone(number: signal.Signals, handler: signal.Handlers) -> None:
    before = signal.signal(number, handler)
    try:
        with DeferredInterrupt() as interrupt:
            signal.raise_signal(number)
        assert not interrupt.requested
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_loaders_workers_leave_interrupts_to_the_program(tmp_path: Path, number: signal.Signals) -> None:
    of_others = set(multiprocessing.active_children())  # of tests before this one
    loader = create_dataset(options(two_domains(tmp_path, n_A=9, n_B=1), num_threads=1))
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - of_others
    os.kill(worker.pid, number)
    assert len(list(batches)) == 8
