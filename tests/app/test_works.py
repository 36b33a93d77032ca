"""Long work: one at a time, it can be stopped, and its errors are lines."""

from pathlib import Path

import pytest

from diffnca.app.works import Cancelled, Work, Works
from diffnca.errors import Interrupted
from diffnca.progress import Report


def work(kind: str = "training") -> Work:
    return Work(kind, "mine", Path("mine"), "`Go on` goes on")


def until_stopped(report: Report, cancelled: Cancelled) -> str:
    while not cancelled():
        report("tiles", 1, 4)
    raise Interrupted("stopped at 25%", "goes on from there")


def test_work_ends_with_its_result() -> None:
    with Works() as works:
        works.begin(made := work(), lambda report, cancelled: "finished")
        works.wait()
    assert (made.text, made.share, made.is_running, made.is_error) == ("finished", 1.0, False, False)


def test_a_second_work_is_refused_while_one_runs() -> None:
    with Works() as works:
        works.begin(work(), until_stopped)
        with pytest.raises(ValueError, match="mine is being made .training.: must be finished first"):
            works.begin(work("image"), until_stopped)


def test_work_that_is_stopped_says_how_far_it_came_and_what_goes_on() -> None:
    with Works() as works:
        works.begin(made := work(), until_stopped)
        works.stop("training")
        works.wait()
    text = "stopped at 25%; `Go on` goes on"
    assert (made.text, made.is_running, made.is_error) == (text, False, False)


def test_a_stop_of_another_kind_stops_nothing() -> None:
    with Works() as works:
        works.begin(made := work(), until_stopped)
        works.stop("image")
        assert made.is_running


def test_the_end_of_the_page_stops_work() -> None:
    with Works() as works:
        works.begin(made := work(), until_stopped)
    assert not made.is_running


def test_an_error_is_the_line_of_the_command_line() -> None:
    def fail(report: Report, cancelled: Cancelled) -> str:
        raise ValueError("pictures:\n none")

    with Works() as works:
        works.begin(made := work(), fail)
        works.wait()
    assert (made.text, made.is_error) == ("pictures: none", True)
