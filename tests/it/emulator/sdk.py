"""The life of a project, driven by the official databricks-sdk and psycopg.

DATABRICKS_HOST and DATABRICKS_TOKEN say where; CA_FILE verifies endpoints. Prints `ok` at the end.
"""

import os
import threading
import time

import psycopg
from databricks.sdk import WorkspaceClient
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.core import Config
from databricks.sdk.errors import AlreadyExists, BadRequest, DatabricksError, NotFound, PermissionDenied
from databricks.sdk.service.postgres import (
    Branch,
    BranchSpec,
    BranchStatusState,
    Database,
    DatabaseDatabaseSpec,
    Endpoint,
    EndpointSettings,
    EndpointSpec,
    EndpointStatusState,
    EndpointType,
    Project,
    ProjectCustomTag,
    ProjectSpec,
    RequestedClaims,
    RequestedClaimsPermissionSet,
    Role,
    RoleAttributes,
    RoleRoleSpec,
    Snapshot,
    SnapshotSpec,
)
from google.protobuf.duration_pb2 import Duration

host = os.environ["DATABRICKS_HOST"]


def client(**credentials):
    config = Config(host=host, retry_timeout_seconds=60, product="lakeops-test", product_version="0.1.0", **credentials)
    return WorkspaceClient(config=config)


def refused(kind, text, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        assert text in str(error), error
        return
    raise AssertionError(f"{call} was not refused")


def seconds(number):
    return Duration(seconds=number)


w = client(token=os.environ.pop("DATABRICKS_TOKEN"))
pg = w.postgres
me = w.current_user.me().user_name


def connect(endpoint, dbname="databricks_postgres", user=me, password=None, **more):
    found = pg.get_endpoint(endpoint)
    password = password or pg.generate_database_credential(endpoint, **more).token
    return psycopg.connect(
        host=found.status.hosts.host,
        port=int(os.environ.get("PGPORT", "5432")),
        dbname=dbname,
        user=user,
        password=password,
        sslmode="verify-full",
        sslrootcert=os.environ["CA_FILE"],
        autocommit=True,
    )


# Create.
spec = ProjectSpec(display_name="Shop", pg_version=17, custom_tags=[ProjectCustomTag(key="team", value="a")])
project = pg.create_project(Project(spec=spec), "shop").wait()
assert project.name == "projects/shop" and project.status.display_name == "Shop", project
assert project.status.history_retention_duration.seconds == 604800, project
refused(AlreadyExists, "already exists", pg.create_project, Project(), "shop")
refused(BadRequest, "must match pattern", pg.create_project, Project(), "Shop!")
main = "projects/shop/branches/production"
assert [it.name for it in pg.list_branches("projects/shop")] == [main]

# List, with pages.
for name in ["dev", "qa", "tmp"]:
    made = pg.create_branch("projects/shop", Branch(spec=BranchSpec(ttl=seconds(3600))), name).wait()
    assert made.status.current_state == BranchStatusState.READY, made
assert len(list(pg.list_branches("projects/shop", page_size=2))) == 4
refused(BadRequest, "exactly one of", pg.create_branch, "projects/shop", Branch(spec=BranchSpec()), "no")
refused(NotFound, "project id not found", pg.get_branch, "projects/none/branches/none")
refused(NotFound, "branch id not found", pg.get_branch, "projects/shop/branches/none")

# Update, with masks; protect; expire.
dev = "projects/shop/branches/dev"
protect = Branch(spec=BranchSpec(is_protected=True, no_expiry=True))
pg.update_branch(dev, protect, FieldMask(["spec.is_protected", "spec.expiration"])).wait()
found = pg.get_branch(dev)
assert found.status.is_protected and found.status.expire_time is None, found
refused(BadRequest, "cannot delete protected branch", pg.delete_branch, dev)
refused(BadRequest, "update_mask", pg.update_branch, dev, Branch(spec=BranchSpec()), FieldMask(["spec.is_protected"]))
pg.update_branch(dev, Branch(spec=BranchSpec(is_protected=False)), FieldMask(["spec.is_protected"])).wait()
project = pg.update_project("projects/shop", Project(spec=ProjectSpec(display_name="New")), FieldMask(["spec.display_name"])).wait()
assert project.status.display_name == "New" and project.status.custom_tags[0].value == "a", project
pg.update_branch("projects/shop/branches/tmp", Branch(spec=BranchSpec(ttl=seconds(1))), FieldMask(["spec.expiration"])).wait()

# Credentials, and SQL with them.
endpoint = f"{main}/endpoints/primary"
with connect(endpoint, ttl=seconds(600)) as session:
    session.execute("create table t as select generate_series(1, 100) as x")
    assert session.execute("select count(*) from t").fetchone() == (100,)
    assert session.execute("select rolsuper from pg_roles where rolname = current_user").fetchone() == (False,)
with connect(endpoint) as session:
    over = threading.Event()

    def cancel():
        # One that comes before the query has begun does nothing.
        while not over.wait(0.3):
            session.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    refused(psycopg.errors.QueryCanceled, "cancel", session.execute, "select pg_sleep(30)")
    over.set()
    canceller.join()
    assert session.execute("select 1").fetchone() == (1,)
claims = [RequestedClaims(permission_set=RequestedClaimsPermissionSet.READ_ONLY)]
with connect(endpoint, claims=claims) as session:
    assert session.execute("select count(*) from t").fetchone() == (100,)
    refused(psycopg.errors.ReadOnlySqlTransaction, "read-only", session.execute, "delete from t")
refused(psycopg.OperationalError, "authentication failed", connect, endpoint, password="wrong")
refused(BadRequest, "ttl", pg.generate_database_credential, endpoint, ttl=seconds(10))

# Suspend and wake.
off = Endpoint(spec=EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_WRITE, disabled=True))
on = Endpoint(spec=EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_WRITE, disabled=False))
stopped = pg.update_endpoint(endpoint, off, FieldMask(["spec.disabled"])).wait()
assert stopped.status.current_state == EndpointStatusState.IDLE, stopped
refused(psycopg.OperationalError, "disabled", connect, endpoint)
pg.update_endpoint(endpoint, on, FieldMask(["spec.disabled"])).wait()
with connect(endpoint) as session:
    assert session.execute("select count(*) from t").fetchone() == (100,)
assert pg.get_endpoint(endpoint).status.current_state == EndpointStatusState.ACTIVE
settings = EndpointSettings(pg_settings={"work_mem": "8MB"})
sized = EndpointSpec(
    endpoint_type=EndpointType.ENDPOINT_TYPE_READ_WRITE,
    autoscaling_limit_min_cu=0.5,
    autoscaling_limit_max_cu=2,
    suspend_timeout_duration=seconds(300),
    settings=settings,
)
mask = ["spec.autoscaling_limit_min_cu", "spec.autoscaling_limit_max_cu", "spec.suspension", "spec.settings"]
sized = pg.update_endpoint(endpoint, Endpoint(spec=sized), FieldMask(mask)).wait()
assert sized.status.suspend_timeout_duration.seconds == 300, sized
assert sized.status.autoscaling_limit_max_cu == 2, sized

# A reader of its own, and what it shows.
reader = Endpoint(spec=EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_ONLY))
reader = pg.create_endpoint(main, reader, "reader").wait()
with connect(reader.name) as session:
    assert session.execute("select pg_is_in_recovery()").fetchone() == (True,)
pg.delete_endpoint(reader.name).wait()
refused(DatabricksError, "read-write endpoint", pg.delete_endpoint, endpoint)

# What expired goes. (While it does, its project cannot be updated.)
until = time.monotonic() + 180
while any(it.name.endswith("/tmp") for it in pg.list_branches("projects/shop")):
    assert time.monotonic() < until, "what expired is still there"
    time.sleep(0.2)

# Roles and databases.
role = Role(spec=RoleRoleSpec(postgres_role="app", attributes=RoleAttributes(createdb=True)))
role = pg.create_role(main, role, role_id="app-role").wait()
refused(BadRequest, "already exists", pg.create_role, main, Role(spec=RoleRoleSpec(postgres_role="app")))
database = Database(spec=DatabaseDatabaseSpec(postgres_database="app", role=role.name))
database = pg.create_database(main, database, database_id="app-db").wait()
native = Project(spec=ProjectSpec(enable_pg_native_login=True))
pg.update_project("projects/shop", native, FieldMask(["spec.enable_pg_native_login"])).wait()
password = pg.reveal_role_password(role.name).password
with connect(endpoint, dbname="app", user="app", password=password) as session:
    session.execute("create table mine (x int)")
off = Role(spec=RoleRoleSpec(attributes=RoleAttributes(createdb=False)))
pg.update_role(role.name, off, FieldMask(["spec.attributes.createdb"])).wait()
assert pg.get_role(role.name).status.attributes.createdb is False
pg.delete_database(database.name).wait()
pg.delete_role(role.name).wait()
assert [it.status.postgres_database for it in pg.list_databases(main)] == ["databricks_postgres"]

# A snapshot, and a branch of it.
snapshot = pg.create_snapshot("projects/shop", Snapshot(spec=SnapshotSpec(source_branch=main, ttl=seconds(3600))), "before").wait()
with connect(endpoint) as session:
    session.execute("drop table t")
restored = Branch(spec=BranchSpec(source_snapshot=snapshot.name, no_expiry=True))
restored = pg.create_branch("projects/shop", restored, "restored").wait()
with connect(f"{restored.name}/endpoints/primary") as session:
    assert session.execute("select count(*) from t").fetchone() == (100,)
pg.delete_snapshot(snapshot.name).wait()

# Replace, delete, undelete.
old = pg.get_branch(dev).uid
pg.create_branch("projects/shop", Branch(spec=BranchSpec(no_expiry=True)), "dev", replace_existing=True).wait()
assert pg.get_branch(dev).uid != old
pg.delete_branch(dev).wait()
assert pg.get_branch(dev).status.delete_time is not None
pg.undelete_branch(dev).wait()
assert pg.get_branch(dev).status.current_state == BranchStatusState.READY
refused(BadRequest, "default branch", pg.delete_branch, main)
pg.delete_project("projects/shop").wait()
assert list(pg.list_projects()) == []
assert [it.delete_time is not None for it in pg.list_projects(show_deleted=True)] == [True]
pg.undelete_project("projects/shop").wait()
with connect(f"{restored.name}/endpoints/primary") as session:
    assert session.execute("select count(*) from t").fetchone() == (100,)
pg.delete_project("projects/shop", purge=True).wait()
refused(NotFound, "project id not found", pg.get_project, "projects/shop")

# Another way in, and none.
made = w.api_client.do("POST", "/emulator/service_principals", body={"client_id": "robot"})
robot = client(client_id=made["client_id"], client_secret=made["client_secret"])
assert robot.current_user.me().user_name == "robot"
assert list(robot.postgres.list_projects()) == []
refused(PermissionDenied, "Invalid access token", client(token="dapi-wrong").postgres.get_project, "projects/shop")
print("ok")
