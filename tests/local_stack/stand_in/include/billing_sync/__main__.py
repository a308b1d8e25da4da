"""Stands in for the pipeline's command line: remembers in the billing database how it was called."""

import os
import sys

import psycopg

with psycopg.connect(os.environ["BILLING_DB_DSN"]) as connection:
    connection.execute("create table if not exists call (words text)")
    connection.execute("insert into call values (%s)", (" ".join(sys.argv[1:]),))
print("stand-in:", *sys.argv[1:])
sys.exit(1 if os.environ.get("STAND_IN_FAILS") == sys.argv[1] else 0)
