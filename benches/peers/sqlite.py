"""SQLite as a queue: WAL, synchronous=FULL, messages of 512 bytes.

Usage: sqlite.py FOLDER SECONDS. Prints one JSON object: messages a second that one producer inserts with a
transaction each, the same with 100 in a transaction, and whole lives (insert, take, acknowledge) with 100 in each of
the three transactions.
"""

import json
import pathlib
import sqlite3
import sys
import time

BATCH = 100
CONTENT = b"x" * 512


def connect(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, status INTEGER, content BLOB)")
    return connection


def insert(connection, count):
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO messages (status, content) VALUES (0, ?)", [(CONTENT,)] * count)
    connection.execute("COMMIT")


def live(connection, count):
    insert(connection, count)
    taken = connection.execute("SELECT max(id) FROM messages").fetchone()[0]
    for status in (1, 2):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE messages SET status = ? WHERE id > ?", (status, taken - count))
        connection.execute("COMMIT")


def rate(path, seconds, step, count):
    connection = connect(path)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step(connection, count)
        done += count
    took = time.perf_counter() - begun
    connection.close()
    return done / took


def main():
    folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
    print(json.dumps({
        "single": rate(folder / "single", seconds, insert, 1),
        "batched": rate(folder / "batched", seconds, insert, BATCH),
        "lives": rate(folder / "lives", seconds, live, BATCH),
    }))


main()
