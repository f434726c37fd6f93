"""The catalogue, its file format and its store."""

import pathlib
import tempfile
import unittest

from shelf.catalogue import Book, Catalogue, UnknownBook, valid_isbn
from shelf.importer import missing_columns, to_book
from shelf.store import Store

WAVES = Book("978-0-15-694960-6", "The Waves", "Virginia Woolf", 1931, 2, ("novel",))
ORLANDO = Book("978-0-15-670160-0", "Orlando", "Virginia Woolf", 1928)
ULYSSES = Book("978-0-679-72276-2", "Ulysses", "James Joyce", 1922, 1, ("novel",))


def catalogue():
    """A catalogue of three books."""
    made = Catalogue()
    for book in (WAVES, ORLANDO, ULYSSES):
        made.add(book)
    return made


class CatalogueTest(unittest.TestCase):
    def test_check_digit_decides(self):
        self.assertTrue(valid_isbn("978-0-15-694960-6"))
        self.assertFalse(valid_isbn("978-0-15-694960-9"))
        self.assertFalse(valid_isbn("0-15-694960-4"))

    def test_a_bad_isbn_is_refused(self):
        with self.assertRaises(ValueError):
            Catalogue().add(Book("123", "No", "Nobody", 2000))

    def test_hyphens_do_not_matter(self):
        self.assertEqual(catalogue().get("9780156949606"), WAVES)

    def test_an_unknown_book_is_named(self):
        with self.assertRaisesRegex(UnknownBook, "9780000000000"):
            catalogue().get("9780000000000")

    def test_search_wants_every_word(self):
        self.assertEqual(catalogue().search("woolf waves"), [WAVES])
        self.assertEqual(catalogue().search("virginia"), [ORLANDO, WAVES])
        self.assertEqual(catalogue().search("joyce waves"), [])

    def test_tags_select(self):
        self.assertEqual(catalogue().tagged("novel"), [WAVES, ULYSSES])


class StoreTest(unittest.TestCase):
    def setUp(self):
        self.store = Store(":memory:")
        self.addCleanup(self.store.close)

    def test_a_book_comes_back_whole(self):
        self.store.save(WAVES)
        self.assertEqual(self.store.by_author("Virginia Woolf"), [WAVES])

    def test_saving_twice_replaces(self):
        self.store.save(WAVES)
        self.store.save(WAVES)
        self.assertEqual(self.store.count(), 1)

    def test_a_page_is_ordered_and_short(self):
        for book in (WAVES, ORLANDO, ULYSSES):
            self.store.save(book)
        self.assertEqual(self.store.page("year", 2), [ULYSSES, ORLANDO])


class ImporterTest(unittest.TestCase):
    ROW = {"isbn": WAVES.isbn, "title": " The Waves ", "author": "Virginia Woolf", "year": "1931"}

    def test_a_row_becomes_a_book(self):
        book = to_book(self.ROW | {"copies": "2", "tags": "novel; "})
        self.assertEqual(book, WAVES)

    def test_a_year_that_is_no_number_is_refused(self):
        with self.assertRaises(ValueError):
            to_book(self.ROW | {"year": "spring"})

    def test_missing_columns_are_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "books.csv")
            path.write_text("isbn,title\n", encoding="utf-8")
            self.assertEqual(missing_columns(path), ["author", "year"])
