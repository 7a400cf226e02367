-- purpose: the tables of a shop; autovacuum was once switched off for some of them, and forgotten
-- needs: PostgreSQL 14
-- params: none
-- columns: none
create schema shop
    create table branches (
        id int4 primary key,
        balance int8 not null
    ) with (
        -- Four hot rows on one page: they are pruned in passing.
        autovacuum_vacuum_threshold = 1000000,
        autovacuum_analyze_threshold = 1000000
    )
    create table accounts (
        id int8 primary key,
        balance int8 not null,
        filler text not null
    )
    create table ledger (
        account_id int8 not null,
        branch_id int4 not null,
        amount int8 not null,
        at timestamptz not null default pg_catalog.clock_timestamp()
    )
    create table orders (
        id int8 primary key,
        state text not null,
        changed_at timestamptz not null,
        note text not null
    ) with (autovacuum_enabled = off)
    create table order_lines (
        id int8 primary key,
        state text not null,
        changed_at timestamptz not null,
        note text not null
    ) with (autovacuum_enabled = off)
    create table carts (
        id int8 primary key,
        state text not null,
        changed_at timestamptz not null,
        note text not null
    ) with (autovacuum_enabled = off)
    create table payments (
        id int8 primary key,
        state text not null,
        changed_at timestamptz not null,
        note text not null
    ) with (autovacuum_enabled = off)
    create table shipments (
        id int8 primary key,
        state text not null,
        changed_at timestamptz not null,
        note text not null
    ) with (autovacuum_enabled = off)
    create table reviews (
        id int8 primary key,
        state text not null,
        changed_at timestamptz not null,
        note text not null
    ) with (autovacuum_enabled = off)
    create table audit_trail (
        id int8 primary key,
        actor text not null,
        detail text not null
    ) with (autovacuum_enabled = off)
    grant usage on schema shop to shop_app
