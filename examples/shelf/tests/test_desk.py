"""The loans desk: lending, fees and letters."""

import unittest
from datetime import datetime, timedelta

from shelf.fees import FEE_MAX, late_fee, total_fee
from shelf.loans import LOAN_DAYS, Desk, NoCopyLeft
from shelf.report import reminder, shelf_list
from tests.test_catalogue import ORLANDO, WAVES, catalogue

MONDAY = datetime(2026, 3, 2)


class LoansTest(unittest.TestCase):
    def setUp(self):
        self.desk = Desk(catalogue())

    def test_a_loan_lasts_three_weeks(self):
        loan = self.desk.lend(WAVES.isbn, "ada", MONDAY)
        self.assertEqual(loan.due, datetime(2026, 3, 23))

    def test_copies_run_out_and_come_back(self):
        loan = self.desk.lend(ORLANDO.isbn, "ada", MONDAY)
        with self.assertRaises(NoCopyLeft):
            self.desk.lend(ORLANDO.isbn, "alan", MONDAY)
        self.desk.give_back(loan)
        self.assertEqual(self.desk.lend(ORLANDO.isbn, "alan", MONDAY).reader, "alan")

    def test_renewals_are_counted(self):
        loan = self.desk.lend(WAVES.isbn, "ada", MONDAY)
        self.assertEqual([self.desk.renew(loan) for _ in range(3)], [True, True, False])

    def test_overdue_lists_the_oldest_first(self):
        late = self.desk.lend(WAVES.isbn, "ada", MONDAY + timedelta(days=1))
        later = self.desk.lend(ORLANDO.isbn, "ada", MONDAY)
        after = MONDAY + timedelta(days=LOAN_DAYS + 5)
        self.assertEqual(self.desk.overdue(after), [later, late])
        self.assertEqual(self.desk.overdue(MONDAY), [])


class FeesTest(unittest.TestCase):
    def test_fees_grow_to_a_bound(self):
        self.assertAlmostEqual(late_fee(3), 0.30)
        self.assertEqual(late_fee(1000), FEE_MAX)

    def test_kinds_of_readers(self):
        self.assertEqual(late_fee(10, "child"), 0)
        self.assertEqual(late_fee(10, "staff"), 0)
        self.assertAlmostEqual(late_fee(10, "student"), 0.5)

    def test_fees_add_up(self):
        self.assertAlmostEqual(total_fee([1, 2, 3]), 0.6)


class ReportTest(unittest.TestCase):
    def test_shelf_list_counts_copies(self):
        self.assertEqual(
            shelf_list([WAVES, ORLANDO]),
            "1931  Virginia Woolf: The Waves (2 copies)\n1928  Virginia Woolf: Orlando",
        )

    def test_a_letter_grows_sterner(self):
        self.assertIn("due today", reminder("Ada", ["Orlando"], 0))
        self.assertIn("several times", reminder("Ada", ["Orlando"], 90, 4.5))
        self.assertIn("4.50 EUR", reminder("Ada", ["Orlando"], 90, 4.5))
        self.assertEqual(reminder("Ada", [], 5), "")
