//! Credentials for PostgreSQL, and who may log in with what.

use std::sync::{Arc, OnceLock, Weak};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::branch_rules::is_archived;
use super::call::Call;
use super::checks;
use super::context::Service;
use super::error::ApiError;
use super::record::{Kind, Record};
use super::scram;
use crate::emulator::fleet::{LoginDecision, LoginRequest, Logins};
use crate::kernel::{Bind, BoxFuture, Digest, SqlFile, Timestamp};
use crate::lakebase::resource::duration;
use crate::sql_file;

const VERIFIER: SqlFile = sql_file!("emulator/role_verifier");
const PASSWORD: &str = "PG_PASSWORD_SCRAM_SHA_256";
const USUAL_TTL: std::time::Duration = std::time::Duration::from_hours(1);

/// What a token stands for. Only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub(super) enum Token {
    /// Calls of the API, by this principal.
    Api { principal: String },
    /// Logins on an endpoint, as the role of this identity.
    Postgres { endpoint_uid: String, role: String, read_only: bool },
}

pub(super) fn create(service: &Service, call: &Call) -> Result<Value, ApiError> {
    let endpoint = call.text("endpoint")?;
    let ttl = call.field("ttl", checks::credential_ttl)?;
    let expire_time = call.field("expire_time", checks::time)?;
    let now = service.clock.now();
    let expires = match (&ttl, &expire_time) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("only one of 'ttl' and 'expire_time' can be set"));
        }
        (Some(ttl), None) => now.plus(ttl.as_str().and_then(duration).unwrap_or(USUAL_TTL)),
        (None, Some(at)) => at.as_str().and_then(Timestamp::parse).unwrap_or(now),
        (None, None) => now.plus(USUAL_TTL),
    };
    let lives = expires.since(now).as_secs();
    if expire_time.is_some() && !(300..=3600).contains(&lives) {
        let text = "Field 'expire_time' must be 5 minutes to an hour from now";
        return Err(ApiError::invalid(text));
    }
    let read_only = claims(&call.body["claims"])?;
    let token = service.secret("lkb_");
    service.store.transact(|tx| {
        let record = tx.need_alive(&endpoint)?;
        if record.kind != Kind::Endpoint {
            return Err(ApiError::invalid("Field 'endpoint' must name an endpoint"));
        }
        let role = call.principal.clone();
        let meaning = Token::Postgres { endpoint_uid: record.uid, role, read_only };
        Ok(tx.put_token(&digest(&token), expires.as_millis(), &meaning)?)
    })?;
    Ok(json!({ "token": token, "expire_time": expires }))
}

/// Whether the claims ask for reading only.
fn claims(claims: &Value) -> Result<bool, ApiError> {
    let mut read_only = false;
    for claim in claims.as_array().into_iter().flatten() {
        if claim["permission_set"] != "READ_ONLY" {
            let text = "Field 'claims.permission_set' must be READ_ONLY";
            return Err(ApiError::invalid(text));
        }
        if claim["resources"].as_array().is_some_and(|list| !list.is_empty()) {
            let what = "restrict a credential to single tables: leave `claims.resources` out";
            return Err(ApiError::not_emulated(what));
        }
        read_only = true;
    }
    Ok(read_only)
}

pub(super) fn digest(token: &str) -> String {
    Digest::of_bytes(token.as_bytes()).to_string()
}

/// Asks the service who may log in, as soon as there is one.
#[derive(Default)]
pub(super) struct ServiceLogins {
    service: OnceLock<Weak<Service>>,
}

impl ServiceLogins {
    pub(super) fn connect(&self, service: &Arc<Service>) {
        // It is connected once.
        drop(self.service.set(Arc::downgrade(service)));
    }
}

impl Logins for ServiceLogins {
    fn check<'a>(&'a self, login: LoginRequest<'a>) -> BoxFuture<'a, LoginDecision> {
        Box::pin(async move {
            let Some(service) = self.service.get().and_then(Weak::upgrade) else {
                return refused(login.role);
            };
            match Box::pin(decide(&service, login)).await {
                Ok(decision) => decision,
                Err(error) => {
                    tracing::warn!(role = login.role, %error, "a login cannot be checked");
                    LoginDecision::Refused { message: error.message }
                }
            }
        })
    }
}

fn refused(role: &str) -> LoginDecision {
    LoginDecision::Refused {
        message: format!("password authentication failed for user \"{role}\""),
    }
}

async fn decide(
    service: &Arc<Service>,
    login: LoginRequest<'_>,
) -> Result<LoginDecision, ApiError> {
    if service.faults.refuses_login(login.endpoint) {
        return Ok(refused(login.role));
    }
    let now = service.clock.now().as_millis();
    let (token, endpoint) = service.store.transact(|tx| {
        let token = tx.token::<Token>(&digest(login.secret), now)?;
        Ok::<_, ApiError>((token, tx.by_uid(Kind::Endpoint, &login.endpoint.0)?))
    })?;
    let Some(endpoint) = endpoint else { return Ok(refused(login.role)) };
    let read_only = match token {
        Some(Token::Postgres { endpoint_uid, role, read_only }) => {
            if endpoint_uid != login.endpoint.0 || role != login.role {
                return Ok(refused(login.role));
            }
            read_only
        }
        None if Box::pin(has_password(service, &endpoint, login)).await? => false,
        Some(Token::Api { .. }) | None => return Ok(refused(login.role)),
    };
    admit(service, &endpoint)?;
    Ok(LoginDecision::Allowed { read_only })
}

/// Whether the secret is the password of the role, where a project allows passwords.
async fn has_password(
    service: &Service,
    endpoint: &Record,
    login: LoginRequest<'_>,
) -> Result<bool, ApiError> {
    #[derive(Deserialize)]
    struct Found {
        verifier: Option<String>,
    }
    let (project, branch, roles) = service.store.transact(|tx| {
        let branch = tx.need(endpoint.parent())?;
        let roles: Vec<Record> = tx.list(&format!("{}/roles", branch.name))?;
        Ok::<_, ApiError>((tx.need(endpoint.project())?, branch, roles))
    })?;
    // A role that was made by SQL is none of the catalogue's, and has what password it was given.
    let known = roles.iter().find(|it| it.text("postgres_role") == Some(login.role));
    let takes = known.is_none_or(|role| role.text("auth_method") == Some(PASSWORD));
    if !project.is("enable_pg_native_login") || !takes || endpoint.is("disabled") {
        return Ok(false);
    }
    let mut admin = service.admin(&branch, "postgres").await?;
    let role = Bind::Text(login.role.to_owned());
    let found: Result<Vec<Found>, _> = admin.rows(&VERIFIER, &[role]).await;
    admin.close().await;
    let verifier = found?.pop().and_then(|it| it.verifier);
    Ok(verifier.is_some_and(|verifier| scram::verifies(&verifier, login.secret)))
}

/// A login brings an archived branch back, and may have to wake a compute: neither beyond the limits.
fn admit(service: &Service, endpoint: &Record) -> Result<(), ApiError> {
    service.store.transact(|tx| {
        let mut branch = tx.need(endpoint.parent())?;
        if is_archived(&branch) {
            super::branch_rules::check_counts(tx, &branch, false)?;
            branch.facts.remove("archived");
            tx.keep(&branch)?;
        }
        if !service.is_awake(endpoint) {
            service.check_active(tx, endpoint.project())?;
        }
        Ok(())
    })
}
