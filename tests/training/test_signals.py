"""Requests to stop are remembered, also across blocks."""

import signal

import pytest

from diffnca.training.signals import stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_remembered(number: signal.Signals) -> None:
    with stop_requests() as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()


def test_a_block_hears_what_came_before_it_in_the_block_around() -> None:
    with stop_requests():
        signal.raise_signal(signal.SIGINT)
        with stop_requests() as stopped:
            assert stopped()


def test_a_block_hears_what_came_in_a_block_within() -> None:
    with stop_requests() as stopped:
        with stop_requests():
            signal.raise_signal(signal.SIGINT)
        assert stopped()


def test_who_runs_the_work_can_ask_too() -> None:
    asked: list[bool] = []
    with stop_requests(lambda: bool(asked)) as stopped, stop_requests(lambda: bool(asked)) as inner:
        assert not stopped() and not inner()
        asked.append(True)
        assert stopped() and inner()


def test_after_the_block_signals_go_their_usual_way() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_requests(), stop_requests():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_block_forgets_what_another_has_heard() -> None:
    with stop_requests():
        signal.raise_signal(signal.SIGINT)
    with stop_requests() as stopped:
        assert not stopped()
