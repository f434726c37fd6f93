"""Books and the searches over them, in memory."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Book:
    """One title. Copies are counted, not listed."""

    isbn: str
    title: str
    author: str
    year: int
    copies: int = 1
    tags: tuple = field(default=())


class UnknownBook(LookupError):
    """No book of that ISBN is in the catalogue."""


def valid_isbn(isbn):
    """Whether the text is an ISBN-13 with a right check digit; hyphens are ignored."""
    digits = isbn.replace("-", "")
    if len(digits) != 13 or not digits.isdigit():
        return False
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return total % 10 == 0


class Catalogue:
    """The books of one library, by ISBN."""

    def __init__(self):
        self._books = {}

    def __len__(self):
        return len(self._books)

    def add(self, book):
        """Adds a book, or replaces the one of the same ISBN. Raises ValueError for a bad ISBN."""
        if not valid_isbn(book.isbn):
            raise ValueError(f"not an ISBN-13: {book.isbn}")
        self._books[book.isbn.replace("-", "")] = book

    def get(self, isbn):
        """The book of that ISBN; raises UnknownBook."""
        try:
            return self._books[isbn.replace("-", "")]
        except KeyError:
            raise UnknownBook(isbn) from None

    def search(self, words, fields=["title", "author"]):
        """Books that have every word in one of the fields, by title."""
        wanted = [word.lower() for word in words.split()]
        found = []
        for book in self._books.values():
            text = " ".join(getattr(book, name) for name in fields).lower()
            if all(word in text for word in wanted):
                found.append(book)
        return sorted(found, key=lambda book: book.title)

    def tagged(self, tag):
        """Books with that tag, by title."""
        return sorted(
            (book for book in self._books.values() if tag in book.tags),
            key=lambda book: book.title,
        )
