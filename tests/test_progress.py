"""Progress: a line now and then, the speed and the time left of the last minute."""

import io

import pytest

from diffnca import progress
from diffnca.progress import Progress, Recent


class Clock:
    """Stands in for the time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_speed_is_that_of_the_last_minute() -> None:
    recent = Recent()
    speeds = [recent.of(float(now), 0 if now < 600 else now - 600) for now in range(0, 720, 10)]
    assert speeds[-1] == pytest.approx(1.0)  # after ten minutes in which nothing came about


def test_the_time_left_does_not_count_what_was_done_before(clock: Clock) -> None:
    with Progress(io.StringIO()) as shown:
        shown("compiling", 0, 0)
        for clock.now in (100.0, 110.0):
            shown("training, loss 1", clock.now - 60.0, 100)
    assert shown.text(50, 100) == "training, loss 1 50%, 50 s left"


def test_work_of_unknown_length_is_said_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream) as shown:
        shown("compiling", 0, 0)
        shown("training", 1, 8)
    assert stream.getvalue() == "diffnca: compiling\n"


def test_where_no_terminal_is_a_line_comes_now_and_then(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream, line_seconds=30.0) as shown:
        for clock.now in (0.0, 20.0, 40.0, 50.0):
            shown("tiles", clock.now, 80)
    assert stream.getvalue() == "diffnca: tiles 50%, 40 s left\n"
