begin;
pragma application_id = 0;
pragma user_version = 0;
CREATE TABLE schema_version (version integer primary key) strict;
CREATE TABLE journal (
  id text not null
) strict;
CREATE TABLE event (
  position       integer primary key,
  stream         text    not null,
  seq            integer not null,
  at             integer not null,
  kind           text    not null,
  payload        text,
  payload_digest blob    not null,
  hash           blob    not null
) strict;
CREATE TABLE plan (
  id           text primary key,
  bytes        blob not null,
  bytes_digest blob not null
) strict, without rowid;
CREATE TABLE run (
  run_id     text    primary key,
  created    integer not null,
  plan_id    text    not null,
  workflow   text    not null,
  target     text    not null,
  outcome    text    not null,
  created_at integer not null,
  updated_at integer not null,
  wake_at    integer,
  key        text
) strict, without rowid;
CREATE TABLE lock_queue (
  position integer primary key,
  lock     text    not null,
  run_id   text    not null
) strict;
CREATE TABLE fact (
  position integer primary key,
  tool     text not null,
  place    text not null
) strict;
insert into "schema_version" values (1);
insert into "schema_version" values (2);
insert into "journal" values ('b87a1e74b54de215');
insert into "event" values (1, '80b04e0299546b2e', 1, 1795812892446, 'run_created', '{"type":"run_created","plan":"4b0a3f03553ade04707c3e82157269ce8e200912a4a5438f050a36c6d7bd8702","workflow":"test","target":{},"key":null,"by":{"name":"ann","from":"test"},"yes":false,"forked_from":null}', x'8d35cfb067a6bc5e51d0b6369a5970565fbaca75bfa72ca0ba9f7b1675344b04', x'2e5c77c6b0a56ba17439a92af18278d8cfdc567bcaa2d42f22faf03a76a4e188');
insert into "event" values (2, '80b04e0299546b2e', 2, 1795812892477, 'run_claimed', '{"type":"run_claimed","by":{"name":"ann","from":"test"},"pid":2778}', x'7bf27e22c94bcc18b2ef653a0e883efb739dd8fe9cc5bb6f1fb67e30a5d433b0', x'6a838518d6b59b306e23a87be08fb30be11a83b9e37d82c3001f44a4f50bfff4');
insert into "event" values (3, '80b04e0299546b2e', 3, 1795812892536, 'changes_proposed', '{"type":"changes_proposed","step":"make","arguments":{"statements":["create table public.made (a int)"]},"set":{"digest":"608cab1342aa165b60f459e6b1011e35255e4c1d57e71dc9b164b1a119aa6ce0","changes":[{"object":"schema lakeops","why":"a change happens exactly once because its key is kept in the same transaction","operation":{"kind":"sql","statement":{"text":"create schema if not exists lakeops"},"transactional":true},"risk":"low","recovery":"repeatable","inverse":{"undo":"impossible","why":"later runs rely on the keys of earlier ones"},"independent":false,"origin":"engine"},{"object":"table lakeops.applied_change","why":"a change happens exactly once because its key is kept in the same transaction","operation":{"kind":"sql","statement":{"text":"create table if not exists lakeops.applied_change (\n    key text primary key,\n    run_id text not null,\n    step text not null,\n    at timestamptz not null default pg_catalog.now()\n)"},"transactional":true},"risk":"low","recovery":"repeatable","inverse":{"undo":"impossible","why":"later runs rely on the keys of earlier ones"},"independent":false,"origin":"engine"},{"object":"statement 1 of 1","why":"the workflow says so","operation":{"kind":"sql","statement":{"text":"create table public.made (a int)"},"transactional":true},"risk":"medium","recovery":"transactional","inverse":{"undo":"impossible","why":"the statement names no `undo`"},"independent":false,"origin":"tool"}]},"policy":[],"ask":[],"server":{"database":"g_1","database_oid":16385,"in_recovery":false,"postmaster_start":"2026-11-27T20:54:52.101Z","system_identifier":"7712957635740306190","user":"postgres","version_num":170010}}', x'c948d01299c6d28a3daa9b05554bea2283e59d01a9131d69715f3243974c7d2c', x'd1fd4d7316591535e383c3870e02f433349abd023f4449b0b64330fbac5bbead');
insert into "event" values (4, '80b04e0299546b2e', 4, 1795812892536, 'approval_requested', '{"type":"approval_requested","step":"gate","request":{"digest":"590c256caa96ef2e8a24dfa04a1eb38450fc44612eaa119467f0ddc4819ab00a","prompt":"Make it?","covers":["make"],"risk":"medium","reasons":[],"expires_at":"2126-11-03T20:54:52.536Z","show":{},"rehearsed_within":"99years 11months 5days 9h 50m 24s"}}', x'9510a32fe7402fd6729ad8558698a1d3f195097427cd73144d860168a9fc60d4', x'361ce2b2ccab4d2bee14446ab7ffe394cde9b501630da9e1208fd59200b8a7af');
insert into "event" values (5, '80b04e0299546b2e', 5, 1795812892536, 'notification_queued', '{"type":"notification_queued","dedup":"80b04e0299546b2e/approval/gate/590c256caa96","severity":"warning","title":"run 80b04e0299546b2e waits for an approval of `gate`","body":"Make it?"}', x'07106283c3b1d91822cd1e65de9dfbf0edd7af599db25df4e0b426da6b6546af', x'e0d0d80466854873f984ae206b1dd31d8262c8d0b0a93248a193f93b420778e4');
insert into "event" values (6, '80b04e0299546b2e', 6, 1795812892558, 'notification_delivered', '{"type":"notification_delivered","dedup":"80b04e0299546b2e/approval/gate/590c256caa96"}', x'6c66c15a4a26eb80ac7e1a00e160167401045bc5055c102f38c7b60d33608165', x'487a6d31f90c69dc69b2e67cc24b2bc4a9a2ac44a75007707bd5e736b3c02c40');
insert into "event" values (7, '80b04e0299546b2e', 7, 1795812892559, 'run_parked', '{"type":"run_parked","outcome":"waiting_approval","wake_at":"2126-11-03T20:54:52.536Z","reason":"approval of gate"}', x'80529cf18b12e8d52e7eccec333a51cd39758d83316f43947af9c93ee8d120c7', x'b8f0ccba3ee2ade3c4bd8a0056f9e7380b87940f0358d4c8f5ae92d1720f11ae');
insert into "event" values (8, '0098376cc3c74b90', 1, 1795812892578, 'run_created', '{"type":"run_created","plan":"4b0a3f03553ade04707c3e82157269ce8e200912a4a5438f050a36c6d7bd8702","workflow":"test","target":{},"key":null,"by":{"name":"ann","from":"test"},"yes":false,"forked_from":null}', x'8d35cfb067a6bc5e51d0b6369a5970565fbaca75bfa72ca0ba9f7b1675344b04', x'7dd4881975a2520dbab941125638d26b69961b299af734e36ecf7e725898c4b2');
insert into "event" values (9, '0098376cc3c74b90', 2, 1795812892578, 'rehearsal_began', '{"type":"rehearsal_began","ttl":"1h"}', x'a7a3067bd123e8ec207d29c351880e66d14a8afebe022d2117618f7fd8302e8c', x'c3dbb0bed7df28d48af58eee7a3bd4a0e83413db71b21e15ee58dcb3ef2cedc1');
insert into "event" values (10, '0098376cc3c74b90', 3, 1795812892586, 'run_claimed', '{"type":"run_claimed","by":{"name":"ann","from":"test"},"pid":2778}', x'7bf27e22c94bcc18b2ef653a0e883efb739dd8fe9cc5bb6f1fb67e30a5d433b0', x'7d581b83ef8c0a1ee491a141378c57b546096583ba87f1993caa823e3abb4a02');
insert into "event" values (11, '0098376cc3c74b90', 4, 1795812892653, 'branch_wanted', '{"type":"branch_wanted","branch":"tmp-rehearse-0098376cc3c74b90","target":{},"change":{"object":"branch tmp-rehearse-0098376cc3c74b90","why":"to rehearse on","operation":{"kind":"sql","statement":{"text":"create database \"tmp-rehearse-0098376cc3c74b90\" template \"g_1\""},"transactional":false},"risk":"low","recovery":"repeatable","inverse":{"undo":"by","operation":{"kind":"sql","statement":{"text":"drop database if exists \"tmp-rehearse-0098376cc3c74b90\" with (force)"},"transactional":false},"recovery":"repeatable"},"independent":false,"origin":"tool"}}', x'99059d3434ad7f8082043b8f1bcd7810bb0087b3f0d8a9e0f4bb776c38635a15', x'84216766872df0a543976cd3e5905dd2260b37f8fa1f08ed4149e784fae07125');
insert into "event" values (12, '0098376cc3c74b90', 5, 1795812893318, 'set_rehearsed', '{"type":"set_rehearsed","step":"make","rehearsed":{"set":"b9dda60bc4164b9fb6ba291ed070a8ed96339bc0428f48bf335e8c488b63fba8","branch":"tmp-rehearse-0098376cc3c74b90","changes":[{"object":"statement 1 of 1","operation":"create table public.made (a int)","kind":"sql","ended":"applied","receipt":{"rows":0,"duration_ms":1,"recovered":false},"locks":[{"relation":"public.made","mode":"AccessExclusiveLock"}]}],"schema":[{"action":"added","impact":"additive","kind":"table","object":"public.made"},{"action":"added","column_type":"integer","impact":"additive","kind":"column","object":"public.made.a","within":"public.made"}]}}', x'e55eb954b1881f5f718f999a3ca93a3336cba4d16f1078fe144c5f11a31e8aff', x'357fa5b33b9f7d8a054b4a423e6d14e8bfc477f965fad273aa7bb6155540e7cb');
insert into "event" values (13, '0098376cc3c74b90', 6, 1795812893486, 'branch_removed', '{"type":"branch_removed","branch":"tmp-rehearse-0098376cc3c74b90"}', x'70becda5522b97b3bc764b87484814a8cd94d4c8048f3cf81611995432a4f24f', x'683f38d86515b2f6fd7cbc352650f1a566cb90c3e0247b8f67ecf6feb5fd202b');
insert into "event" values (14, '0098376cc3c74b90', 7, 1795812893498, 'run_finished', '{"type":"run_finished","outcome":"succeeded","compensation":"none","outputs":null}', x'ebab30426b344581029d5a1805781cc504c1acaaa7fd5e27fc042062ce334ff4', x'84b97d98c33a17f1911d5701b2dccbdb80c0573af0c624976f0505b298c9c15f');
insert into "plan" values ('4b0a3f03553ade04707c3e82157269ce8e200912a4a5438f050a36c6d7bd8702', x'7b22626f6479223a7b22616c77617973223a5b5d2c22636f6e6e656374696f6e223a226c6f63616c222c226465736372697074696f6e223a22222c226c696d697473223a7b226d61785f6368616e676573223a6e756c6c2c2274696d656f7574223a6e756c6c7d2c226c6f636b223a6e756c6c2c226f6e5f6661696c757265223a5b5d2c226f757470757473223a7b7d2c22706172616d73223a7b7d2c22706f6c696379223a6e756c6c2c22707265636f6e646974696f6e73223a5b5d2c227265706c61636573223a6e756c6c2c227363686564756c65223a6e756c6c2c2273637269707473223a7b7d2c2273656372657473223a5b5d2c2273716c223a7b7d2c227374657073223a5b7b22616374696f6e223a7b22636f76657273223a5b226d616b65225d2c2265787069726573223a22393979656172732031316d6f6e7468732035646179732039682035306d20323473222c226b696e64223a22617070726f76616c222c226f6e5f72656a656374223a2273746f70222c2270726f6d7074223a224d616b652069743f222c227265686561727365645f77697468696e223a22393979656172732031316d6f6e7468732035646179732039682035306d20323473227d2c226964223a2267617465222c227265747279223a7b226261636b6f6666223a7b22666163746f72223a322c22696e697469616c223a2235306d73222c226a6974746572223a302e322c226d6178223a22333073227d2c226d61785f617474656d707473223a332c226f6e223a5b227472616e7369656e74222c226c6f636b5f74696d656f7574225d7d2c227269736b223a226c6f77222c2274696d656f7574223a22333073227d2c7b22616374696f6e223a7b226b696e64223a22746f6f6c222c22746f6f6c223a22657865637574655f73716c222c2277697468223a7b2273746174656d656e7473223a5b22637265617465207461626c65207075626c69632e6d61646520286120696e7429225d7d7d2c226964223a226d616b65222c226e65656473223a5b7b22696e666572726564223a66616c73652c2273746570223a2267617465227d5d2c227265747279223a7b226261636b6f6666223a7b22666163746f72223a322c22696e697469616c223a2235306d73222c226a6974746572223a302e322c226d6178223a22333073227d2c226d61785f617474656d707473223a332c226f6e223a5b227472616e7369656e74222c226c6f636b5f74696d656f7574225d7d2c227269736b223a226c6f77222c2274696d656f7574223a22333073227d5d2c22746172676574223a7b7d2c22746f6f6c73223a7b7d2c227472696767657273223a6e756c6c2c22776f726b666c6f77223a2274657374222c22776f726b666c6f775f646967657374223a2265336230633434323938666331633134396166626634633839393666623932343237616534316534363439623933346361343935393931623738353262383535227d2c22637265617465645f6174223a22313937302d30312d30315430303a30303a30302e3030305a222c22666f726d6174223a312c226964223a2234623061336630333535336164653034373037633365383231353732363963653865323030393132613461353433386630353061333663366437626438373032227d', x'8bc29130504bb28cc388e1c8b93972880b9318d7aea799873f6b4a1f9816d7bd');
insert into "run" values ('0098376cc3c74b90', 8, '4b0a3f03553ade04707c3e82157269ce8e200912a4a5438f050a36c6d7bd8702', 'test', '-/-/-', 'succeeded', 1795812892578, 1795812893498, null, null);
insert into "run" values ('80b04e0299546b2e', 1, '4b0a3f03553ade04707c3e82157269ce8e200912a4a5438f050a36c6d7bd8702', 'test', '-/-/-', 'waiting_approval', 1795812892446, 1795812892559, 4949412892536, null);
CREATE UNIQUE INDEX event_by_stream on event (stream, seq);
CREATE INDEX event_decision on event (stream, seq)
where kind in ('cancel_requested', 'approval_decided', 'doubt_settled', 'unstuck', 'override');
CREATE UNIQUE INDEX run_by_key on run (key) where key is not null;
CREATE INDEX run_by_creation on run (created);
CREATE UNIQUE INDEX lock_queue_by_lock on lock_queue (lock, run_id);
CREATE INDEX lock_queue_by_run on lock_queue (run_id);
CREATE INDEX fact_by_name on fact (tool, place, position);
commit;
