"""Files for people are written again only where what they show has changed."""

from pathlib import Path

import pytest

from negtraj_dagster.store import Store
from negtraj_dagster.views.write import write_if_changed


class Page:
    """A page that counts how often it was written."""

    def __init__(self, store: Store) -> None:
        self.store, self.n_written = store, 0
        self.path = store.home / "quality" / "x.html"

    def show(self, **shows: object) -> Path:
        def write() -> Path:
            self.n_written += 1
            self.store.write_text("quality/x.html", f"page {self.n_written}")
            return self.path

        return write_if_changed(self.store, "quality/x.html", shows, write)


@pytest.fixture
def shown(store: Store) -> Page:
    made = Page(store)
    made.show(corpus="a")
    return made


def test_the_same_is_not_written_twice(shown: Page) -> None:
    assert shown.show(corpus="a") == shown.path
    assert shown.n_written == 1


def test_something_else_is_written(shown: Page) -> None:
    shown.show(corpus="b")
    assert shown.n_written == 2
    shown.show(corpus="a")
    assert shown.n_written == 3


@pytest.mark.parametrize(
    "spoil", [lambda path: path.unlink(), lambda path: path.write_text("cut")], ids=["deleted", "changed by somebody"]
)
def test_a_file_that_is_gone_or_changed_is_written_again(shown: Page, spoil) -> None:
    spoil(shown.path)
    shown.show(corpus="a")
    assert shown.n_written == 2
    assert shown.path.read_text() == "page 2"


def test_a_home_that_was_moved_has_its_pages_written_again(shown: Page, tmp_path: Path) -> None:
    """They hold paths."""
    moved = tmp_path / "moved"
    shown.store.home.rename(moved)
    elsewhere = Page(Store(moved))
    elsewhere.show(corpus="a")
    assert elsewhere.n_written == 1
