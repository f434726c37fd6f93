"""Texts for the desk: the shelf list and the reminder letter."""


def shelf_list(books):
    """One line a book: year, author, title, and how many copies when it is not one."""
    lines = []
    for book in books:
        copies = f" ({book.copies} copies)" if book.copies != 1 else ""
        lines.append(f"{book.year}  {book.author}: {book.title}{copies}")
    return "\n".join(lines)


def reminder(reader, titles, days, fee=None):
    """The letter to a reader whose copies are late."""
    if not titles:
        return ""
    if days > 60:
        opening = "We have asked for these several times"
    elif days > 21:
        opening = "We asked for these before"
    elif days > 0:
        opening = "These are late"
    else:
        opening = "These are due today"
    lines = [f"Dear {reader},", "", f"{opening}:"]
    lines += [f"- {title}" for title in titles]
    if fee != None and days > 0:
        lines += ["", f"The fee so far is {fee:.2f} EUR."]
    return "\n".join(lines)
