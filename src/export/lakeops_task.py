"""Starts a run on a lakeops server and follows it to its end.

Written by `lakeops export databricks`; it needs nothing but Python. The run, its journal and its approvals stay
with the server: this only asks for it and looks. The slot is the idempotency key, so however often the task is
tried, there is one run for each slot.

  lakeops_task.py start  ...   asks for the run, and ends when the server has recorded it
  lakeops_task.py follow ...   asks for the same run, and ends as it does

The token is in the secret SCOPE/KEY of the workspace; on other machines in LAKEOPS_API_TOKEN.
Exit codes: 0 done · 1 the run did not succeed · 2 refused · 3 it waits for a person · 4 the server cannot be reached
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

DONE, FAILED, REFUSED, WAITS, AWAY = 0, 1, 2, 3, 4
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(Exception):
    """The server understood, and says no."""


class Away(Exception):
    """The server cannot be reached, or says that it cannot work now."""


def token(reference):
    value = os.environ.get("LAKEOPS_API_TOKEN")
    if value:
        return value
    scope, _, key = reference.partition("/")
    from databricks.sdk.runtime import dbutils  # only there is it installed

    return dbutils.secrets.get(scope, key)


class Server:
    def __init__(self, url, secret):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise Refused(f"{url} is not https: the token would be sent in the open")
        self.url = url.rstrip("/")
        self.secret = secret

    def ask(self, method, path, body=None, key=None):
        headers = {"Authorization": "Bearer " + self.secret, "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        if key is not None:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code in (429, 502, 503, 504):
                raise Away(f"{error.code} {text}") from error
            raise Refused(f"{error.code} {text}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
            raise Away(str(error)) from error

    def patiently(self, lost, *args, **more):
        """Asks until an answer comes, for at most `lost` seconds: asking twice is harmless here."""
        end, pause = time.monotonic() + lost, 1.0
        while True:
            try:
                return self.ask(*args, **more)
            except Away as error:
                if time.monotonic() + pause > end:
                    raise
                print(f"no answer yet: {error}", flush=True)
                time.sleep(pause)
                pause = min(pause * 2, 15.0)


def follow(server, run, args):
    pause, waits_since, told = 1.0, None, None
    while not is_over(run["outcome"]):
        if run["outcome"] != told:
            told = run["outcome"]
            print(f"run {run['run_id']}: {told} {run.get('reason') or ''}".rstrip(), flush=True)
        if run["outcome"] in ("waiting_approval", "in_doubt", "stuck"):
            waits_since = waits_since or time.monotonic()
            if time.monotonic() - waits_since >= args.patience:
                print(f"it waits for a person: lakeops show {run['run_id']}", flush=True)
                return WAITS
        else:
            waits_since = None
        time.sleep(min(pause, args.every))
        pause = pause * 1.5
        run = server.patiently(args.lost, "GET", "/v1/runs/" + run["run_id"])
    print(json.dumps({"run": run["run_id"], "outcome": run["outcome"], "outputs": run.get("outputs")}))
    if run["outcome"] == "succeeded":
        return DONE
    print(f"why: {json.dumps(run.get('failure'))}", file=sys.stderr)
    return FAILED


def is_over(outcome):
    return outcome in ("succeeded", "failed", "cancelled")


def arguments(given):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("verb", choices=["start", "follow"])
    parser.add_argument("--url", required=True, help="the server, by https")
    parser.add_argument("--token", required=True, metavar="SCOPE/KEY", help="the secret with the token")
    parser.add_argument("--workflow", required=True)
    parser.add_argument("--schedule", required=True, help="the schedule that the slot is one of")
    parser.add_argument("--slot", required=True, help="the time of the slot")
    parser.add_argument("--repair", default="0", help="how often the job's run was repaired: each is a new run")
    parser.add_argument("--params", default="{}", help="the parameters, as JSON")
    parser.add_argument("--patience", type=float, default=3600, help="seconds to wait for a person")
    parser.add_argument("--every", type=float, default=15, help="seconds between two looks")
    parser.add_argument("--lost", type=float, default=600, help="seconds to wait for a server that is away")
    return parser.parse_args(given)


def main(given):
    args = arguments(given)
    key = f"databricks {args.workflow} {args.schedule} {args.slot}"
    if args.repair not in ("", "0"):
        key += f" repair {args.repair}"
    try:
        server = Server(args.url, token(args.token))
        body = {"workflow": args.workflow, "params": json.loads(args.params)}
        run = server.patiently(args.lost, "POST", "/v1/runs", body, key)
        print(f"run {run['run_id']} of {args.workflow} for {args.slot}", flush=True)
        return follow(server, run, args) if args.verb == "follow" else DONE
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except Away as error:
        print(f"the server cannot be reached: {error}", file=sys.stderr)
        return AWAY


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # A task that ends with `sys.exit(0)` counts as failed in some runtimes.
    if code:
        sys.exit(code)
