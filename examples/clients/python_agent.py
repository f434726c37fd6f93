#!/usr/bin/env python3
"""An OpenClaw agent in plain Python: the standard library, HTTP, and docs/protocol.md.

It registers, takes the tasks that it is offered, counts the lines, words and bytes of their files,
and reports each end. What it must not forget lies in a small JSON file, so that it can be killed at
any moment and started again.

    python3 examples/clients/python_agent.py http://127.0.0.1:8080 --agent-id counter

It stops after --tasks tasks, or on Ctrl-C.
"""

import argparse
import json
import os
import pathlib
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

VERSION = "1.0.0"


class Refused(Exception):
    """The server answered with a problem document, or refused one message of a batch."""

    def __init__(self, status, error):
        self.status = status
        self.code = error.get("code", "")
        self.retryable = error.get("retryable", status in (408, 421, 425, 429) or status >= 500)
        self.after = error.get("retry_after_seconds", 0)
        super().__init__(f"{status} {self.code}: {error.get('detail') or error.get('message')}")


class Journal:
    """What outlives a crash: the reports that nobody has confirmed yet."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.unsent = json.loads(self.path.read_text()) if self.path.exists() else []

    def save(self):
        """Replaces the file as a whole, after its bytes are on the disk."""
        new = self.path.with_suffix(".new")
        with open(new, "w", encoding="utf-8") as file:
            json.dump(self.unsent, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)


class Server:
    """One server as the protocol's HTTP transport shows it."""

    def __init__(self, url, agent_id, token=None):
        self.url = url.rstrip("/")
        self.agent_id = agent_id
        self.token = token
        self.session = None
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method, path, body=None, timeout=60):
        """One request; its status, its headers and its JSON."""
        headers = {"Content-Type": "application/json"}
        if self.session:
            headers["OpenClaw-Session"] = self.session
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with self.opener.open(request, timeout=timeout) as response:
                text = response.read()
                return response.headers, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            try:
                problem = json.loads(error.read())
            except ValueError:
                problem = {"detail": "no problem document"}
            problem.setdefault("retry_after_seconds", int(error.headers.get("Retry-After", 0)))
            raise Refused(error.code, problem) from None

    def send(self, message):
        """Sends one message; the payload of its acknowledgement."""
        headers, answer = self.call("POST", "/messages", message)
        result = answer["results"][0]
        if result["status"] == "refused":
            raise Refused(202, result["error"])
        self.session = headers.get("OpenClaw-Session", self.session)
        return result.get("payload", {})

    def read(self, wait):
        """All unacknowledged messages; waits for the first."""
        path = f"/messages?agent_id={self.agent_id}&limit=100&wait={wait}"
        return self.call("GET", path, timeout=wait + 30)[1]["messages"]

    def acknowledge(self, ids):
        """Confirms receipt."""
        body = {"agent_id": self.agent_id, "message_ids": ids}
        self.call("POST", "/messages/ack", body)


class Agent:
    """Takes tasks, one at a time."""

    def __init__(self, server, journal, task_types):
        self.server = server
        self.journal = journal
        self.task_types = task_types
        self.instance_id = str(uuid.uuid4())
        self.interval = 30
        self.last_heartbeat = 0.0
        self.at_work = None
        self.done = 0
        self.failures = 0

    def message(self, message_type, payload, answers=None):
        """An envelope of this agent with a new id."""
        envelope = {
            "message_type": message_type,
            "agent_id": self.server.agent_id,
            "message_id": str(uuid.uuid4()),
            "payload": payload,
        }
        if answers:
            envelope["correlation_id"] = answers
        return envelope

    def register(self):
        """Opens a session."""
        payload = {
            "name": "python-agent",
            "version": VERSION,
            "capabilities": self.task_types,
            "max_concurrent_tasks": 1,
            "instance_id": self.instance_id,
            "running": self.running(),
        }
        answer = self.server.send(self.message("register", payload))
        self.interval = answer["heartbeat_interval"]
        self.last_heartbeat = time.monotonic()
        print(f"registered, session {answer['session_id']}", file=sys.stderr)

    def running(self):
        """Tasks that are this agent's business until the server has their end."""
        grants = [message["payload"] for message in self.journal.unsent]
        grants += [self.at_work] if self.at_work else []
        return [{"task_id": task["task_id"], "attempt": task["attempt"]} for task in grants]

    def heartbeat(self):
        """Tells the server that this agent lives, when it is time."""
        if time.monotonic() - self.last_heartbeat < self.interval / 2:
            return
        running = self.running()
        status = "busy" if running else "idle"
        self.server.send(self.message("heartbeat", {"status": status, "running": running}))
        self.last_heartbeat = time.monotonic()

    def report(self, message):
        """Keeps a message until the server has it, then sends all that are kept, in order."""
        self.journal.unsent.append(message)
        self.journal.save()
        self.flush()

    def flush(self):
        """Sends what is kept. A final refusal ends a message; all else leaves it for later."""
        while self.journal.unsent:
            message = self.journal.unsent[0]
            try:
                self.server.send(message)
            except Refused as refused:
                if refused.retryable or refused.status in (401, 403, 404):
                    raise
                print(f"refused for good: {refused}", file=sys.stderr)
            self.journal.unsent.pop(0)
            self.journal.save()
            self.done += 1
            print(f"{message['payload']['task_id']} is reported", file=sys.stderr)

    def take(self, offer):
        """Judges an offer and does its work. Delivered again, the server refuses its accept."""
        task = offer["payload"]
        grant = {"task_id": task["task_id"], "attempt": task["attempt"]}
        if task["task_type"] not in self.task_types:
            reject = {**grant, "reason": "unsupported"}
            self.server.send(self.message("task_reject", reject, offer["message_id"]))
            return
        try:
            self.server.send(self.message("task_accept", grant, offer["message_id"]))
        except Refused as refused:
            if refused.retryable:
                raise
            print(f"the offer of {grant['task_id']} is void: {refused}", file=sys.stderr)
            return
        self.at_work = grant
        begun = time.monotonic()
        counts, error = self.work(task.get("files") or [])
        end = {**grant, "status": "failed" if error else "completed", "result": counts}
        if error:
            end["error"] = {"code": "unreadable", "message": error}
        end["duration_seconds"] = round(time.monotonic() - begun, 3)
        self.at_work = None
        self.report(self.message("task_complete", end))

    def work(self, files):
        """Counts lines, words and bytes of each file."""
        counts = {}
        for number, name in enumerate(files, 1):
            try:
                text = pathlib.Path(name).read_bytes()
            except OSError as error:
                return counts, str(error)
            counts[name] = {
                "lines": text.count(b"\n"), "words": len(text.split()), "bytes": len(text),
            }
            self.progress(number / len(files), name)
        return counts, None

    def progress(self, share, name):
        """An update is not worth a second attempt: the next one says more."""
        update = {**self.at_work, "progress": share, "message": name}
        try:
            self.heartbeat()
            self.server.send(self.message("task_update", update))
        except (OSError, Refused) as error:
            print(f"an update got lost: {error}", file=sys.stderr)

    def turn(self):
        """Registers if there is no session, sends what is kept, and handles what has arrived."""
        if not self.server.session:
            self.register()
        self.flush()
        self.heartbeat()
        for message in self.server.read(wait=max(1, int(self.interval / 2))):
            if message["message_type"] == "task_offer":
                self.take(message)
            self.server.acknowledge([message["message_id"]])

    def run(self, tasks):
        """Turns until enough tasks are done; waits longer after each failure in a row."""
        while tasks is None or self.done < tasks:
            try:
                self.turn()
                self.failures = 0
            except (OSError, Refused) as error:
                if getattr(error, "code", "") == "session_replaced":
                    sys.exit(f"another instance of {self.server.agent_id} took over: {error}")
                if isinstance(error, Refused) and error.code in ("unauthorized", "forbidden"):
                    sys.exit(f"present another token: {error}")
                print(f"will try again: {error}", file=sys.stderr)
                self.server.session = None
                self.failures += 1
                longest = min(300, 0.5 * 2 ** min(self.failures, 10))
                time.sleep(max(getattr(error, "after", 0), random.uniform(0, longest)))


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", help="base URL of the server")
    parser.add_argument("--agent-id", default="python-agent")
    parser.add_argument("--task-type", action="append", help="may be given several times")
    parser.add_argument("--tasks", type=int, help="stop after so many")
    parser.add_argument("--journal", default="python_agent.json", help="what outlives a crash")
    options = parser.parse_args()
    server = Server(options.server, options.agent_id, os.environ.get("LOKI_OPENCLAW_TOKEN"))
    agent = Agent(server, Journal(options.journal), options.task_type or ["file_statistics"])
    try:
        agent.run(options.tasks)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


if __name__ == "__main__":
    main()
