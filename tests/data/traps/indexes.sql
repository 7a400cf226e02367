-- Indexes that look alike and are not, and some that are. What must be found is in tests/it/detect/.
create schema dup;
create table dup.t (id int primary key, a int, b int, c text, d jsonb);
create index p_a on dup.t (a);
create index p_a_dup on dup.t (a);
create index p_ab on dup.t (a, b);
create index p_inc on dup.t (a) include (b);
create index p_inc_other on dup.t (a) include (c);
create index p_id on dup.t (id);
create unique index p_u2 on dup.t (id, b);
create index p_desc on dup.t (a desc);
create index p_part on dup.t (a) where b > 0;
create index p_lower on dup.t (lower(c));
create index p_upper on dup.t (upper(c));
create index p_c on dup.t (c);
create index p_pattern on dup.t (c text_pattern_ops);
create index p_collated on dup.t (c collate "POSIX");
create index p_hash on dup.t using hash (a);
create index p_gin on dup.t using gin (d);
create index p_gin_path on dup.t using gin (d jsonb_path_ops);
-- A constraint outlives its twin; one that is checked at commit cannot stand in for one that is not.
create table dup.u (x int unique, y int);
create unique index u_twin on dup.u (x);
create table dup.v (x int unique deferrable initially deferred);
create unique index v_early on dup.v (x);
-- A foreign key needs the uniqueness of a plain unique index.
create table dup.r (x int);
create unique index r_needed on dup.r (x);
create unique index r_twin on dup.r (x);
create table dup.r_child (x int references dup.r (x));
create index r_child_x on dup.r_child (x);
-- Replication and CLUSTER go by an index.
create table dup.ri (x int not null);
create unique index ri_identity on dup.ri (x);
alter table dup.ri replica identity using index ri_identity;
create table dup.cl (x int, y int);
create index cl_order on dup.cl (x);
create index cl_wide on dup.cl (x, y);
alter table dup.cl cluster on cl_order;
-- Of partitioned tables, only the index of the whole can go.
create table dup.parts (id int, day int) partition by range (day);
create table dup.parts_1 partition of dup.parts for values from (0) to (10);
create table dup.parts_2 partition of dup.parts for values from (10) to (20);
create index parts_id on dup.parts (id);
create index parts_id_dup on dup.parts (id);
-- Odd names.
create schema "Odd.Schema";
create table "Odd.Schema"."T ""x""" ("Col;1" int);
create index "I 1" on "Odd.Schema"."T ""x""" ("Col;1");
create index "I 2" on "Odd.Schema"."T ""x""" ("Col;1");

-- What a failed build leaves.
create schema bad;
create table bad.t (a int);
create index bad_left on bad.t (a);
create index bad_fine on bad.t (a, a);
update pg_index set indisvalid = false where indexrelid = 'bad.bad_left'::regclass;

-- Foreign keys: f1, f3, f5, f7, f8, f9, f10 and fp have no index that serves.
create schema fk;
create table fk.p (id int primary key, a int, b int, t text unique, unique (a, b));
insert into fk.p select g, g, g, g::text from generate_series(1, 100) as g;
create table fk.f1 (z int, a int, b int, constraint f1 foreign key (a, b) references fk.p (a, b));
create index f1_wrong_order on fk.f1 (z, a, b);
create table fk.f2 (a int, b int, constraint f2 foreign key (a, b) references fk.p (a, b));
create index f2_other_order on fk.f2 (b, a);
create table fk.f3 (pid int constraint f3 references fk.p, z int);
create index f3_partial on fk.f3 (pid) where z > 0;
create table fk.f4 (pid int constraint f4 references fk.p);
create index f4_not_null on fk.f4 (pid) where pid is not null;
create table fk.f5 (a int, b int, constraint f5 foreign key (a, b) references fk.p (a, b));
create index f5_prefix on fk.f5 (a);
create table fk.f6 (pid int constraint f6 references fk.p);
create index f6_hash on fk.f6 using hash (pid);
create table fk.f7 (pid int constraint f7 references fk.p);
create table fk.f8 (pid int constraint f8 references fk.p);
create index f8_invalid on fk.f8 (pid);
update pg_index set indisvalid = false where indexrelid = 'fk.f8_invalid'::regclass;
create table fk.f9 (pid int constraint f9 references fk.p);
create index f9_expression on fk.f9 ((pid + 0));
create table fk.f10 (t text constraint f10 references fk.p (t));
create index f10_collated on fk.f10 (t collate "POSIX");
create table fk.f11 (pid int constraint f11_tiny references fk.p);
create table fk.fp (pid int constraint fp references fk.p, day int) partition by range (day);
create table fk.fp_1 partition of fk.fp for values from (0) to (10);
create table fk.fp_2 partition of fk.fp for values from (10) to (20);
create table fk.fq (pid int constraint fq references fk.p, day int) partition by range (day);
create table fk.fq_1 partition of fk.fq for values from (0) to (10);
create table fk.fq_2 partition of fk.fq for values from (10) to (20);
create index fq_1_pid on fk.fq_1 (pid);
create index fq_2_pid on fk.fq_2 (pid);
insert into fk.f1 select g, g % 100 + 1, g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f2 select g % 100 + 1, g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f3 select g % 100 + 1, g from generate_series(1, 2000) as g;
insert into fk.f4 select g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f5 select g % 100 + 1, g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f6 select g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f7 select g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f8 select g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f9 select g % 100 + 1 from generate_series(1, 2000) as g;
insert into fk.f10 select (g % 100 + 1)::text from generate_series(1, 2000) as g;
insert into fk.f11 select g % 100 + 1 from generate_series(1, 20) as g;
insert into fk.fp select g % 100 + 1, g % 20 from generate_series(1, 2000) as g;
insert into fk.fq select g % 100 + 1, g % 20 from generate_series(1, 2000) as g;

-- Indexes that nobody uses, and those that only look so.
create schema un;
create table un.p (id int primary key);
insert into un.p select g from generate_series(1, 100) as g;
create table un.t (
    id int primary key, a int, b int, c int, d text, e int, pid int references un.p, f int
) with (autovacuum_enabled = false);
insert into un.t
select g, g, g, g, g::text, g, g % 100 + 1, g from generate_series(1, 20000) as g;
create index un_unused on un.t (a);
create index un_used on un.t (b);
create unique index un_unique on un.t (c);
create index un_statistics on un.t (lower(d));
create index un_cluster on un.t (e);
alter table un.t cluster on un_cluster;
create index un_foreign_key on un.t (pid);
create table un.small (a int);
create index un_small on un.small (a);
create table un.parts (a int, b int) partition by range (a);
create table un.parts_1 partition of un.parts for values from (0) to (10000);
create table un.parts_2 partition of un.parts for values from (10000) to (20001);
insert into un.parts select g, g from generate_series(1, 20000) as g;
create index un_parts_used on un.parts (a);
create index un_parts_unused on un.parts (b);

-- B-trees that are mostly empty, and those that only look so.
create schema bl;
create table bl.worn (id int primary key, t text, few int) with (autovacuum_enabled = false);
insert into bl.worn select g, 'value ' || g, g % 20 from generate_series(1, 60000) as g;
create index worn_t on bl.worn (t);
create table bl.fine (id int primary key, t text, few int, n int, m numeric)
with (autovacuum_enabled = false);
insert into bl.fine
select g, 'value ' || g, g % 20, case when g % 2 = 0 then g end, g from generate_series(1, 60000) as g;
create index fine_roomy on bl.fine (id) with (fillfactor = 50);
create index fine_few on bl.fine (few);
create index fine_few_apart on bl.fine (few, id) with (deduplicate_items = off);
create index fine_nulls on bl.fine (n);
create index fine_partial on bl.fine (t) where few = 1;
create index fine_numeric on bl.fine (m);
create index fine_lower on bl.fine (lower(t));
create table bl.unknown (id int, t text) with (autovacuum_enabled = false);
create index unknown_t on bl.unknown (t);
insert into bl.unknown select g, 'value ' || g from generate_series(1, 60000) as g;
analyze fk.f1, fk.f2, fk.f3, fk.f4, fk.f5, fk.f6, fk.f7, fk.f8, fk.f9, fk.f10, fk.f11, un.t;
