//! Copies of a database on its own server: `CREATE DATABASE … TEMPLATE`.

use super::capture;
use super::fence::Fence;
use super::ground::{Ground, Place, Tools};
use super::snapshot::Snapshot;
use crate::config::connection::DATABASE_URL;
use crate::kernel::{BoxFuture, Failure, Ident, Target};
use crate::plan::{Plan, PlanBody};
use crate::postgres::PgEndpoint;

/// The database where databases are made from: one cannot be copied from within.
const MAINTENANCE: &str = "postgres";

/// Copies of one database.
pub struct Copied {
    tools: Tools,
    plan: Plan,
    original: PgEndpoint,
}

impl Copied {
    /// Copies of the database of `original`, which `plan` was made for.
    pub fn new(tools: Tools, plan: &Plan, original: PgEndpoint) -> Result<Self, Failure> {
        // The processes know their copy by its URL only, and the real connection not at all.
        let target = Target { database: None, ..plan.body.target.clone() };
        let connection = DATABASE_URL.to_owned();
        let body = PlanBody { target, connection, ..plan.body.clone() };
        let sealed = Plan::seal(body, plan.created_at);
        let plan = sealed.map_err(|error| {
            Failure::permanent("crash::plan", format!("the plan cannot be written: {error}"))
        })?;
        Ok(Self { tools, plan, original })
    }

    fn name(&self, what: &str) -> String {
        format!("{}_{what}", self.tools.stem.replace('-', "_"))
    }

    fn maintenance(&self) -> PgEndpoint {
        self.original.with_database(MAINTENANCE)
    }

    async fn copy(&self, of: &str, name: &str) -> Result<(), Failure> {
        let text = format!("create database {} template {}", Ident::new(name), Ident::new(of));
        self.tools.statement(text, &self.maintenance()).await
    }

    async fn drop(&self, name: &str) -> Result<(), Failure> {
        let text = format!("drop database if exists {} with (force)", Ident::new(name));
        self.tools.statement(text, &self.maintenance()).await
    }
}

impl Ground for Copied {
    fn about(&self) -> String {
        format!("a copy of the database `{}`, on its own server", self.original.database())
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async {
            let base = self.name("base");
            self.copy(self.original.database(), &base).await.map_err(|failure| {
                let advice = "PostgreSQL copies a database only while nobody else is connected to it, for a \
                    role that may create databases. Test on a restored backup, or on a branch: \
                    `--connection emulator`";
                failure.with_help(advice)
            })?;
            self.tools.set_up(&self.original.with_database(&base)).await
        })
    }

    fn place(&self, number: usize) -> BoxFuture<'_, Result<Place, Failure>> {
        Box::pin(async move {
            let name = self.name(&number.to_string());
            self.copy(&self.name("base"), &name).await?;
            let endpoint = self.original.with_database(&name);
            Ok(Place {
                vars: vec![("LAKEOPS_DATABASE_URL", endpoint.to_url())],
                plan: self.plan.clone(),
                fence: Fence::Database { database: name.clone() },
                name,
            })
        })
    }

    fn capture<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Snapshot, Failure>> {
        Box::pin(async {
            let mut snapshot = Snapshot::default();
            let endpoint = self.original.with_database(&place.name);
            capture::database(endpoint, "", &mut snapshot).await?;
            Ok(snapshot)
        })
    }

    fn remove(&self, number: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.drop(&self.name(&number.to_string())).await })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { self.drop(&self.name("base")).await })
    }
}
