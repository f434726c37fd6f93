//! First signal drains, second stops.
