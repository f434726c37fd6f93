"""The catalogue and the loans desk of a small lending library."""

__version__ = "0.3.0"
