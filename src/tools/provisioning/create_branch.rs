//! Makes a branch, or adopts the one that is there.
//!
//! Reads: the project, its branches and their computes; the branch policy.
//! Changes: one branch, with the computes that the platform gives it.
//! Undo: a branch that was made is deleted; one that was there stays.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kernel::{ChangeSet, Failure, Risk, Span, Timestamp};
use crate::tools::branching::change::{Expiry, Point};
use crate::tools::branching::lifecycle;
use crate::tools::branching::making::{self, Made, Request};
use crate::tools::branching::policy::Creator;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(CreateBranch));

struct CreateBranch;

/// The branch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What it is called; `qa-release-v2.3.0` and `feat/New Cart` become `qa-release-v2-3-0` and
    /// `feat-new-cart`.
    branch_name: String,
    /// Its parent; by default the project's default branch.
    #[serde(default)]
    source_branch: Option<String>,
    /// How long it lives; by default as the branch policy says for its prefix.
    #[serde(default)]
    ttl: Option<Span>,
    /// When it goes away, instead of `ttl` (RFC 3339).
    #[serde(default)]
    expire_time: Option<String>,
    /// Whether it stays, instead of `ttl`.
    #[serde(default)]
    no_expiry: bool,
    /// The parent as it was then (RFC 3339), instead of as it is.
    #[serde(default)]
    source_branch_time: Option<String>,
    /// A place in the parent's log, such as `0/1A2B3C8`, instead of the parent as it is.
    #[serde(default)]
    source_branch_lsn: Option<String>,
    /// Who asks.
    #[serde(default)]
    creator_type: Creator,
    /// Why, for the history.
    #[serde(default)]
    reason: Option<String>,
}

impl WriteTool for CreateBranch {
    const META: ToolMeta = ToolMeta {
        name: "create_branch",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Makes a branch, or adopts the one that is there",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Made;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        making::propose(cx, &request(params)?).await
    }

    fn report(&self, settled: &[Settled<'_>]) -> Made {
        making::report(settled)
    }

    fn history(&self, output: &Made) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}

fn request(params: Params) -> Result<Request, Failure> {
    let why =
        params.reason.clone().unwrap_or_else(|| format!("asked for as `{}`", params.branch_name));
    Ok(Request {
        expiry: expiry(&params)?,
        point: point(&params)?,
        wanted: params.branch_name,
        source: params.source_branch,
        creator: params.creator_type,
        why,
    })
}

/// The API wants exactly one; here at most one is said, and the policy fills in.
fn expiry(params: &Params) -> Result<Option<Expiry>, Failure> {
    let at = params.expire_time.as_deref().map(|text| instant("expire_time", text)).transpose()?;
    match (params.ttl, at, params.no_expiry) {
        (None, None, false) => Ok(None),
        (Some(ttl), None, false) if ttl.0.is_zero() => Err(wrong("`ttl` is zero")),
        (Some(ttl), None, false) => Ok(Some(Expiry::After(ttl))),
        (None, Some(at), false) => Ok(Some(Expiry::At(at))),
        (None, None, true) => Ok(Some(Expiry::Never)),
        _ => Err(wrong("say one of `ttl`, `expire_time` and `no_expiry`, not more")),
    }
}

fn point(params: &Params) -> Result<Point, Failure> {
    match (&params.source_branch_time, &params.source_branch_lsn) {
        (None, None) => Ok(Point::Head),
        (Some(text), None) => instant("source_branch_time", text).map(Point::Time),
        (None, Some(lsn)) => Ok(Point::Lsn(lsn.clone())),
        (Some(_), Some(_)) => {
            Err(wrong("say one of `source_branch_time` and `source_branch_lsn`, not both"))
        }
    }
}

fn instant(name: &str, text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse(text)
        .ok_or_else(|| wrong(&format!("`{name}`: `{text}` is not an RFC 3339 time")))
}

fn wrong(text: &str) -> Failure {
    Failure::permanent("create_branch::arguments", text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(params: Value) -> Result<Request, Failure> {
        request(serde_json::from_value(params).unwrap())
    }

    #[test]
    fn at_most_one_expiry_and_one_point_are_said() {
        let name = "feat-cart";
        assert_eq!(of(json!({"branch_name": name})).unwrap().expiry, None);
        let week = of(json!({"branch_name": name, "ttl": "7d"})).unwrap().expiry;
        assert_eq!(week, Some(Expiry::After(Span::from_secs(604_800))));
        let never = of(json!({"branch_name": name, "no_expiry": true})).unwrap();
        assert_eq!(never.expiry, Some(Expiry::Never));
        for wrong in [
            json!({"branch_name": name, "ttl": "7d", "no_expiry": true}),
            json!({"branch_name": name, "ttl": "0s"}),
            json!({"branch_name": name, "expire_time": "soon"}),
            json!({"branch_name": name, "source_branch_time": "2026-01-01T00:00:00Z",
                "source_branch_lsn": "0/1"}),
        ] {
            assert_eq!(of(wrong.clone()).unwrap_err().code, "create_branch::arguments", "{wrong}");
        }
    }
}
