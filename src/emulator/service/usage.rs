//! What is used, metered from the emulator's own endpoints and branches: the rows of
//! `system.billing.usage`, one for each hour and thing.
//!
//! A compute that is awake uses its smallest size: nothing here scales. One compute unit for an hour is
//! one DBU, and a gigabyte for an hour one DSU: both rates, and the list prices of one unit for one US
//! dollar, are the emulator's own, as the real ones are not documented.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::context::Service;
use super::error::ApiError;
use super::record::{Kind, Record};
use super::store::Tx;
use crate::kernel::Timestamp;

/// How often what is used is noted.
pub(super) const EVERY: Duration = Duration::from_secs(10);
const HOUR_MS: i64 = 3_600_000;
const GIGABYTE: f64 = 1_000_000_000.0;
pub(super) const COMPUTE: &str = "ENTERPRISE_DATABASE_SERVERLESS_COMPUTE_US_EAST_1";
pub(super) const STORAGE: &str = "ENTERPRISE_DATABRICKS_STORAGE_US_EAST_1";

/// What one thing used in one hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Used {
    record_id: String,
    sku: String,
    hour: i64,
    project_uid: String,
    branch_uid: String,
    endpoint_uid: Option<String>,
    owner: Option<String>,
    tags: Value,
    quantity: f64,
}

impl Service {
    /// Notes what was used since `since`, up to now.
    pub(super) fn meter(&self, since: Timestamp) -> Result<(), ApiError> {
        let now = self.clock.now();
        let hours = now.since(since).min(EVERY * 6).as_secs_f64() / 3600.0;
        self.store.transact(|tx| {
            let projects: Vec<Record> = tx.list(Kind::Project.plural())?;
            for project in projects.iter().filter(|it| it.is_alive()) {
                let below: Vec<Record> = tx.below(&project.name)?;
                for record in below.iter().filter(|it| it.is_alive()) {
                    if let Some(amount) = self.amount(record) {
                        self.note(tx, (project, record, &below), (now, amount * hours))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Notes what was used in the last moment, so that a test need not wait; an emulator-only call.
    pub(super) fn meter_now(&self) -> Result<(), ApiError> {
        let now = self.clock.now().as_millis();
        self.meter(Timestamp::from_millis(now - 1))
    }

    /// What a thing uses in an hour.
    fn amount(&self, record: &Record) -> Option<f64> {
        match record.kind {
            Kind::Endpoint if self.is_awake(record) => {
                record.spec.get("autoscaling_limit_min_cu")?.as_f64()
            }
            Kind::Branch => {
                let bytes = record.facts.get("logical_size_bytes")?.as_f64()?;
                Some(bytes / GIGABYTE)
            }
            _ => None,
        }
    }

    fn note(
        &self,
        tx: &Tx<'_>,
        (project, record, below): (&Record, &Record, &[Record]),
        (now, quantity): (Timestamp, f64),
    ) -> Result<(), ApiError> {
        let hour = now.as_millis() / HOUR_MS * HOUR_MS;
        let name = format!("usage/{hour}:{}", record.uid);
        let is_endpoint = record.kind == Kind::Endpoint;
        let mut used = match tx.get::<Used>(&name)? {
            Some(used) => used,
            None => Used {
                record_id: self.uuid(),
                sku: if is_endpoint { COMPUTE } else { STORAGE }.to_owned(),
                hour,
                project_uid: project.uid.clone(),
                branch_uid: if is_endpoint {
                    let branch = below.iter().find(|it| it.name == record.parent());
                    branch.map(|it| it.uid.clone()).unwrap_or_default()
                } else {
                    record.uid.clone()
                },
                endpoint_uid: is_endpoint.then(|| record.uid.clone()),
                owner: project.fact("owner").map(str::to_owned),
                tags: project.spec.get("custom_tags").cloned().unwrap_or_default(),
                quantity: 0.0,
            },
        };
        used.quantity += quantity;
        Ok(tx.put(&name, &used)?)
    }
}

/// The rows of `system.billing.usage`.
pub(super) fn usage_rows(tx: &Tx<'_>) -> Result<Vec<Value>, ApiError> {
    let all: Vec<Used> = tx.list("usage")?;
    Ok(all.iter().map(usage_row).collect())
}

fn usage_row(used: &Used) -> Value {
    let at = |millis: i64| Timestamp::from_millis(millis).to_datetime();
    let text = |millis: i64| at(millis).format("%Y-%m-%dT%H:%M:%S").to_string();
    let day = at(used.hour).format("%Y-%m-%d").to_string();
    let tags = used.tags.as_array().into_iter().flatten();
    let tags: serde_json::Map<String, Value> = tags
        .filter_map(|tag| Some((tag["key"].as_str()?.to_owned(), tag["value"].clone())))
        .collect();
    let is_compute = used.sku == COMPUTE;
    let lakebase = if is_compute {
        json!({ "compute_type": "COMPUTE_NODE_ALWAYS_ON_MIN" })
    } else {
        json!({ "storage_type": "BRANCH_DATA_STORAGE" })
    };
    json!({
        "record_id": used.record_id,
        "account_id": "00000000-0000-4000-a000-000000000001",
        "workspace_id": super::identity::WORKSPACE,
        "sku_name": used.sku,
        "cloud": "AWS",
        "usage_start_time": text(used.hour),
        "usage_end_time": text(used.hour + HOUR_MS),
        "usage_date": day,
        "custom_tags": tags,
        "usage_unit": if is_compute { "DBU" } else { "DSU" },
        "usage_quantity": format!("{:.9}", used.quantity),
        "usage_metadata": {
            "project_id": used.project_uid,
            "branch_id": used.branch_uid,
            "endpoint_id": used.endpoint_uid,
            "database_instance_id": null,
            "dlt_pipeline_id": null,
        },
        "identity_metadata": { "run_as": used.owner, "owned_by": used.owner, "created_by": used.owner },
        "record_type": "ORIGINAL",
        "ingestion_date": day,
        "billing_origin_product": "LAKEBASE",
        "product_features": { "lakebase": lakebase },
        "usage_type": if is_compute { "COMPUTE_TIME" } else { "STORAGE_SPACE" },
    })
}

/// The rows of `system.billing.list_prices`.
pub(super) fn price_rows() -> Vec<Value> {
    let price = |(sku, unit): (&str, &str)| {
        json!({
            "price_start_time": "2020-01-01T00:00:00",
            "price_end_time": null,
            "account_id": "00000000-0000-4000-a000-000000000001",
            "sku_name": sku,
            "cloud": "AWS",
            "currency_code": "USD",
            "usage_unit": unit,
            "pricing": { "default": 1.0, "effective_list": { "default": 1.0 } },
        })
    };
    [(COMPUTE, "DBU"), (STORAGE, "DSU")].map(price).to_vec()
}
