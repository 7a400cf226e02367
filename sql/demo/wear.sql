-- purpose: rows that were changed over and over, so that many dead ones lie between them
-- needs: PostgreSQL 14
-- params: none
-- columns: none
do $$
declare
    worn record;
begin
    for worn in
        select w.name, w.row_count
        from (
            values
                ('order_lines', 45000),
                ('orders', 30000),
                ('payments', 25000),
                ('carts', 20000),
                ('shipments', 15000),
                ('reviews', 10000)
        ) as w (name, row_count)
    loop
        execute pg_catalog.format(
            'insert into shop.%I (id, state, changed_at, note)
             select i, ''new'', pg_catalog.now(), pg_catalog.md5(i::text)
             from pg_catalog.generate_series(1, $1) as i',
            worn.name
        ) using worn.row_count;
        execute pg_catalog.format(
            'update shop.%I set state = ''paid'', changed_at = pg_catalog.clock_timestamp()
             where id %% 5 < 3',
            worn.name
        );
    end loop;
end
$$
