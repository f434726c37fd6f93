"""Reads books from the CSV that publishers send."""

import csv

from shelf.catalogue import Book

COLUMNS = ["isbn", "title", "author", "year"]


def read_books(path):
    """Yields the books of a CSV file with a header; rows that cannot be read are left out."""
    source = open(path)
    for row in csv.DictReader(source):
        try:
            yield to_book(row)
        except Exception:
            pass


def to_book(row):
    """A book from one row. Raises KeyError or ValueError."""
    tags = tuple(tag.strip() for tag in (row.get("tags") or "").split(";") if tag.strip())
    copies = int(row["copies"]) if row.get("copies") else 1
    return Book(*(row[name].strip() for name in COLUMNS[:3]), int(row["year"]), copies, tags)


def missing_columns(path):
    """Columns that the header of the file lacks."""
    header = next(csv.reader(open(path, encoding="utf-8")), [])
    return [name for name in COLUMNS if name not in header]
