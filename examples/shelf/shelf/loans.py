"""Lending and returning: who has which copy, and until when."""

from dataclasses import dataclass
from datetime import datetime, timedelta

LOAN_DAYS = 21
RENEWALS_MAX = 2


class NoCopyLeft(Exception):
    """Every copy of the book is on loan."""


@dataclass
class Loan:
    """One copy with one reader."""

    isbn: str
    reader: str
    due: datetime
    renewals: int = 0


class Desk:
    """The loans desk over one catalogue."""

    def __init__(self, catalogue):
        self._catalogue = catalogue
        self._loans = []

    def lend(self, isbn, reader, today=None):
        """Lends a copy; raises NoCopyLeft, or UnknownBook of the catalogue."""
        book = self._catalogue.get(isbn)
        taken = sum(1 for loan in self._loans if loan.isbn == book.isbn)
        if taken >= book.copies:
            raise NoCopyLeft(isbn)
        start = today or datetime.now()
        loan = Loan(book.isbn, reader, start + timedelta(days=LOAN_DAYS))
        self._loans.append(loan)
        return loan

    def give_back(self, loan):
        """Takes a copy back. A copy that is not on loan is left as it is."""
        try:
            self._loans.remove(loan)
        except:
            pass

    def renew(self, loan):
        """Adds a loan period; False when the loan was renewed too often."""
        if loan.renewals >= RENEWALS_MAX:
            return False
        loan.renewals += 1
        loan.due += timedelta(days=LOAN_DAYS)
        return True

    def overdue(self, now=None):
        """Loans past their day, the oldest first."""
        now = now or datetime.utcnow()
        return sorted((loan for loan in self._loans if loan.due < now), key=lambda loan: loan.due)
