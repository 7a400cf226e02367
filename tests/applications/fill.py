"""Fills every table of some schemas with rows of every type, without minding what they mean.

Usage: DATABASE_URL=postgres://… python3 fill.py ROWS SCHEMA…   (needs psycopg2, and a superuser)
"""

import os
import sys

import psycopg2

TABLES = """
    select n.nspname, c.relname, c.oid
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = any(%s) and c.relkind = 'r'
    order by 1, 2
"""
COLUMNS = """
    select quote_ident(a.attname), t.typname, t.typtype, a.atttypmod, t.oid::regtype::text, exists (
        select from pg_index as i
        where i.indrelid = a.attrelid and i.indisunique and a.attnum = any(i.indkey)
    )
    from pg_attribute as a
    join pg_type as t on t.oid = a.atttypid
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
"""
FIXED = {
    "bool": "(g % 2 = 0)",
    "bytea": r"'\x00'::bytea",
    "int2": "(g % 30000)",
    "interval": "interval '1 hour'",
    "json": "'{}'",
    "jsonb": "'{}'",
    "time": "time '10:00'",
}


def expression(name, kind, category, modifier, written, unique):
    """A value of the column that differs from row to row as much as it must."""
    # Columns that need not be unique have a few hundred values, each column its own number.
    number = "g" if unique else f"(g % {7 + sum(map(ord, name)) * 13 % 997})"
    if kind in FIXED:
        return FIXED[kind]
    if kind in ("int4", "int8", "numeric", "float4", "float8", "oid"):
        return number
    if kind in ("varchar", "text", "bpchar"):
        longest = modifier - 4 if modifier > 4 else 60
        return f"left('v' || {number}, {longest})"
    if kind in ("timestamp", "timestamptz"):
        return f"now() - {number} * interval '1 minute'"
    if kind == "date":
        return f"current_date - ({number} % 3000)::int"
    if kind == "uuid":
        return f"md5({number}::text)::uuid"
    if category == "e":
        return f"(enum_range(null::{written}))[1]"
    return "null"


def main():
    rows, schemas = int(sys.argv[1]), sys.argv[2:]
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    connection.autocommit = True
    cursor = connection.cursor()
    # Foreign keys are not minded either.
    cursor.execute("set session_replication_role = replica")
    cursor.execute(TABLES, (schemas,))
    filled, refused = 0, []
    for schema, table, oid in cursor.fetchall():
        cursor.execute(COLUMNS, (oid,))
        columns = cursor.fetchall()
        names = ", ".join(column[0] for column in columns)
        values = ", ".join(expression(*column) for column in columns)
        try:
            cursor.execute(
                f'insert into "{schema}"."{table}" ({names}) '
                f"select {values} from generate_series(1, {rows}) as g on conflict do nothing"
            )
            filled += 1
        except psycopg2.Error as error:
            refused.append(f"{schema}.{table}: {str(error).splitlines()[0]}")
    cursor.execute("analyze")
    print(f"{filled} tables filled; {len(refused)} have checks that such rows do not pass")
    print("\n".join(refused))


main()
