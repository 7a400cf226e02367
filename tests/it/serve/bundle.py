"""Reads a bundle's jobs and alerts with the dataclasses of the official SDK: nothing may be lost on the way."""

import json
import sys

from databricks.sdk.service.jobs import JobSettings
from databricks.sdk.service.sql import AlertV2

bundle = json.load(sys.stdin)


def same(kind, key, given):
    read = kind.from_dict(given).as_dict()
    assert read == given, f"{key}: {given} became {read}"


for key, job in bundle["jobs"].items():
    same(JobSettings, key, job)
for key, alert in bundle["alerts"].items():
    same(AlertV2, key, alert)
print(len(bundle["jobs"]), len(bundle["alerts"]), "ok")
