"""What a late copy costs."""

FEE_A_DAY = 0.10
FEE_MAX = 8.00


def late_fee(days, reader_kind="adult"):
    """The fee for a copy that is `days` late, in euros."""
    assert days >= 0, "days late cannot be negative"
    if reader_kind == "child":
        return 0.0
    fee: float = days * FEE_A_DAY
    if reader_kind == "student":
        fee = fee / 2
    elif reader_kind == "staff":
        fee = 0.0
    return min(fee, FEE_MAX)


def total_fee(days_late, reader_kind="adult"):
    """The sum for several copies, in euros."""
    return sum(late_fee(days, reader_kind) for days in days_late)


def settled(fee_paid: float, fee_due: float) -> bool:
    """Whether a payment covers the fee exactly."""
    return fee_paid == fee_due
