"""Tests of the shelf package."""
