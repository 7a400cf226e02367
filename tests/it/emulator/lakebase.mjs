// Connects with the official @databricks/lakebase: its pool fetches credentials by itself.
// The environment says where: DATABRICKS_HOST, DATABRICKS_TOKEN, PGHOST, PGDATABASE, PGPORT,
// LAKEBASE_ENDPOINT; NODE_EXTRA_CA_CERTS verifies the endpoint. Prints `ok` at the end.
import assert from "node:assert/strict";
import { createLakebasePool, generateDatabaseCredential, getUsernameWithApiLookup } from "@databricks/lakebase";

const user = await getUsernameWithApiLookup();
assert.equal(user, process.env.EXPECTED_USER);
const pool = createLakebasePool({ user, max: 4 });
await pool.query("create table js (id int primary key, note text)");
await Promise.all(
  [1, 2, 3, 4, 5, 6, 7, 8].map((id) => pool.query("insert into js values ($1, $2)", [id, `note ${id}`])),
);
const counted = await pool.query("select count(*)::int as n, current_user::text as who from js");
assert.deepEqual(counted.rows, [{ n: 8, who: user }]);
const client = await pool.connect();
try {
  await client.query("begin");
  await client.query("delete from js");
  await client.query("rollback");
  assert.equal((await client.query("select count(*)::int as n from js")).rows[0].n, 8);
} finally {
  client.release();
}
await assert.rejects(pool.query("select * from missing"), { code: "42P01" });
await pool.end();
assert.equal(typeof generateDatabaseCredential, "function");
console.log("ok");
