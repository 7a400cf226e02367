-- purpose: the batches of a table that are in the archive and visible, the newest first
-- needs: PostgreSQL 14; lakeops.archived_batch
-- params: $1 table text
-- columns: batch_id text, rows int8, kept_hot text[]
select b.batch_id, b.rows, b.kept_hot
from lakeops.archived_batch as b
where b.source_table = $1::text and b.restored_at is null
order by b.archived_at desc, b.batch_id
