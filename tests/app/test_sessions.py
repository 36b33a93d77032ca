"""Files of a tab: no name from the browser is a path, and nothing stays when the tab is closed."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffnca.app.sessions import MOST_TABS, Sessions, line

HOSTILE = ["../../evil.png", "/etc/evil.png", "..\\evil.png", "<script>alert(1)</script>.png", "a\nb.png"]


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    with Sessions() as made:
        yield made


def upload(folder: Path, content: bytes = b"picture") -> Path:
    path = folder / "upload"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_the_name_of_an_upload_is_no_part_of_its_path(name: str, sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.of("tab")
    kept = session.keep(upload(tmp_path), name)
    assert kept == session.folder / "000000.png" and kept.read_bytes() == b"picture"


def test_a_tab_is_no_part_of_a_path(sessions: Sessions) -> None:
    assert sessions.of("../../evil").folder.parent == sessions.folder


@pytest.mark.parametrize("name", ["evil.html", "evil.svg", "evil", "evil.png.exe"])
def test_other_files_than_pictures_are_refused(name: str, sessions: Sessions, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"picture={name}: must be a file of .png"):
        sessions.of("tab").keep(upload(tmp_path), name)


def test_an_upload_that_is_too_large_is_refused(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.app.sessions.LARGEST_UPLOAD_BYTES", 3)
    with pytest.raises(ValueError, match="must be of at most 0 MB"):
        sessions.of("tab").keep(upload(tmp_path, b"1234"), "a.png")


def test_messages_name_an_upload_as_the_person_does(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.of("tab")
    kept = session.keep(upload(tmp_path), "holiday.png")
    assert session.shown(f"{kept}: is damaged") == "holiday.png: is damaged"


def test_messages_name_the_fields_of_the_page_instead_of_options(sessions: Sessions) -> None:
    told = sessions.of("tab").shown("a.png: give --layout.classes NAME=#RRGGBB, or other --layouts")
    assert told == "a.png: give Classes NAME=#RRGGBB, or other Maps"


def test_options_without_a_field_keep_their_names(sessions: Sessions) -> None:
    assert sessions.of("tab").shown("give fewer --model.channels") == "give fewer --model.channels"


def test_a_line_of_the_page_is_text() -> None:
    assert "<script>" not in line("<script>alert(1)</script>.png: is damaged")


@pytest.mark.parametrize("data", ["", "data:text/html;base64,PGI+", "data:image/png;base64,***"])
def test_what_is_no_drawing_is_refused_in_one_line(data: str, sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="drawing") as refusal:
        sessions.of("tab").drawn(data, "drawing")
    assert "\n" not in str(refusal.value)


def test_two_tabs_have_their_own_files(sessions: Sessions) -> None:
    assert sessions.of("one").folder != sessions.of("other").folder
    assert sessions.of("one") is sessions.of("one")


def test_a_closed_tab_leaves_no_file(sessions: Sessions) -> None:
    session = sessions.of("tab")
    session.path(".png").write_bytes(b"image")
    sessions.close("tab")
    assert list(sessions.folder.iterdir()) == [sessions.uploads]


def test_a_tab_that_is_closed_at_work_stops_it_and_its_files_go_with_the_work(sessions: Sessions) -> None:
    at_work, is_stopped = threading.Event(), threading.Event()

    def work() -> None:
        with sessions.at_work("tab") as session:
            session.path(".png").write_bytes(b"part")
            at_work.set()
            while not session.is_stopped():
                pass
            assert session.folder.is_dir()
            is_stopped.set()

    thread = threading.Thread(target=work)
    thread.start()
    at_work.wait()
    sessions.close("tab")
    thread.join()
    assert is_stopped.is_set() and list(sessions.folder.iterdir()) == [sessions.uploads]


def test_the_next_work_of_a_tab_is_not_stopped_by_an_earlier_stop(sessions: Sessions) -> None:
    sessions.of("tab").stop()
    with sessions.at_work("tab") as session:
        assert not session.is_stopped()


def test_an_address_answers_while_its_tab_is_open(sessions: Sessions) -> None:
    session = sessions.of("tab")
    path = session.path(".png")
    path.write_bytes(b"image")
    name = session.address(path).removeprefix("/made/")
    assert sessions.file_at(name) == path
    sessions.close("tab")
    assert sessions.file_at(name) is None


@pytest.mark.parametrize("name", ["000000.png", "../000000.png", "/etc/passwd", ""])
def test_a_name_that_no_address_has_leads_to_no_file(name: str, sessions: Sessions) -> None:
    session = sessions.of("tab")
    path = session.path(".png")
    path.write_bytes(b"image")
    session.address(path)
    assert sessions.file_at(name) is None


def test_the_number_of_tabs_is_limited(sessions: Sessions) -> None:
    for number in range(MOST_TABS):
        sessions.of(str(number))
    with pytest.raises(ValueError, match="close some of them"):
        sessions.of("one more")


def test_nothing_is_left_at_the_end() -> None:
    with Sessions() as sessions:
        sessions.of("tab").path(".png").write_bytes(b"image")
    assert not sessions.folder.exists()
