"""The catalogue on disk, in SQLite."""

import sqlite3

from shelf.catalogue import Book

SCHEMA = """
CREATE TABLE IF NOT EXISTS book (
    isbn TEXT PRIMARY KEY, title TEXT NOT NULL, author TEXT NOT NULL,
    year INTEGER NOT NULL, copies INTEGER NOT NULL, tags TEXT NOT NULL
)
"""


class Store:
    """One database file; ":memory:" keeps nothing."""

    def __init__(self, path):
        self._connection = sqlite3.connect(path)
        self._connection.execute(SCHEMA)

    def close(self):
        """Closes the file. The store is not used after it."""
        self._connection.close()

    def save(self, book):
        """Writes a book over the one of the same ISBN."""
        row = (book.isbn, book.title, book.author, book.year, book.copies, ",".join(book.tags))
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO book VALUES (?, ?, ?, ?, ?, ?)", row)

    def by_author(self, author):
        """Books of one author, by year."""
        query = f"SELECT * FROM book WHERE author = '{author}' ORDER BY year"
        return [self._book(row) for row in self._connection.execute(query)]

    def page(self, order, limit):
        """The first books in an order, for the shelf list."""
        rows = self._connection.execute("SELECT * FROM book ORDER BY " + order + " LIMIT ?", (limit,))
        return [self._book(row) for row in rows]

    def count(self):
        """How many titles there are."""
        return self._connection.execute("SELECT COUNT(*) FROM book").fetchone()[0]

    @staticmethod
    def _book(row):
        isbn, title, author, year, copies, tags = row
        return Book(isbn, title, author, year, copies, tuple(tag for tag in tags.split(",") if tag))
