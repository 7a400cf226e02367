//! The databases of a workspace: from a target to a session's endpoint.
//!
//! A compute's state is looked at before anybody connects, since connecting wakes it. Passwords are
//! minted for one endpoint, kept until shortly before they expire, and tried once before they are
//! handed out: a fresh one takes a while to reach the compute.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::api::NOT_FOUND;
use super::client::WorkspaceClient;
use super::find::{branches, find_branch, find_project, read_write_endpoint};
use super::lease::{Lease, Renewing};
use super::name::{BranchName, id_of};
use super::resource::{Endpoint, EndpointState};
use crate::config::settings::Limits;
use crate::kernel::{Failure, RetryClass, Secret, Target, Timestamp};
use crate::postgres::{ComputeId, PgEndpoint, PgError, Remote, knock};

/// The database that every project has.
pub const DEFAULT_DATABASE: &str = "databricks_postgres";

/// The code of the failure that a compute is suspended and nobody said that it may be woken.
pub const SUSPENDED: &str = "lakebase::suspended";

/// The port where an endpoint says none.
const PORT: u16 = 5432;

/// How long before its end a password is replaced (official driver).
const RENEW_AHEAD: Duration = Duration::from_mins(2);

/// The pauses while a fresh password is not known to the compute yet, and for how long that may be so.
const FIRST_LOGIN_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_LOGIN_PAUSE: Duration = Duration::from_secs(8);
const LOGIN_PATIENCE: Duration = Duration::from_mins(1);

/// How much later than our own last work a compute may say that it was used, and that was still us: the
/// end of a session takes a moment, and its clock is not ours.
const OURS: Duration = Duration::from_secs(5);

/// How much longer than its time to suspend a compute is left alone: something else keeps it awake then.
const OVERDUE: Duration = Duration::from_mins(2);

/// The pause between two looks at a compute that starts, and for how long it may do so.
const WAKE_PAUSE: Duration = Duration::from_secs(1);
const WAKE_PATIENCE: Duration = Duration::from_mins(2);

/// A workspace with its databases.
pub struct Lakebase {
    client: Arc<WorkspaceClient>,
    project: Option<String>,
    ca_file: Option<PathBuf>,
    limits: Limits,
    computes: Mutex<BTreeMap<String, Arc<Compute>>>,
    /// When we last worked on a target.
    used: Mutex<BTreeMap<Target, Timestamp>>,
}

/// What is known about one compute.
#[derive(Default)]
struct Compute {
    password: Renewing,
    /// The password that has logged in.
    proven: Mutex<Option<Secret<String>>>,
    branch: OnceCell<String>,
}

/// How a compute was found.
struct Found {
    endpoint: Endpoint,
    /// Whether it still has to start.
    sleeps: bool,
}

impl Lakebase {
    /// The databases of a workspace. `project` is meant where a target names none; `limits` bound how
    /// long a connection may take.
    pub fn new(
        client: Arc<WorkspaceClient>,
        project: Option<String>,
        ca_file: Option<PathBuf>,
        limits: &Limits,
    ) -> Self {
        let (computes, used) = (Mutex::default(), Mutex::default());
        Self { client, project, ca_file, limits: limits.clone(), computes, used }
    }

    /// The workspace.
    pub const fn client(&self) -> &Arc<WorkspaceClient> {
        &self.client
    }

    /// Whether a target need not name a project.
    pub const fn has_project(&self) -> bool {
        self.project.is_some()
    }

    /// The branch that a target means: of its project or the connection's, its branch or the project's
    /// default.
    pub async fn branch(&self, target: &Target) -> Result<BranchName, Failure> {
        let Some(project) = target.project.clone().or_else(|| self.project.clone()) else {
            let text =
                format!("the target `{target}` names no project, and the connection has none");
            return Err(Failure::permanent("lakebase::no_target", text)
                .with_help("name it: `--target PROJECT/BRANCH`, `target:` of the workflow, or `project` of the connection"));
        };
        if let Some(branch) = &target.branch {
            return Ok(BranchName::new(project, branch.clone()));
        }
        let Some(found) = find_project(&*self.client, &project).await? else {
            let text = format!("the workspace has no project `{project}`");
            return Err(Failure::permanent("lakebase::no_project", text));
        };
        let branch = found.status.default_branch.as_deref().map(id_of).ok_or_else(|| {
            let text = format!("project `{project}` says no default branch");
            Failure::permanent("lakebase::no_target", text)
                .with_help("name the branch: `--target PROJECT/BRANCH`")
        })?;
        Ok(BranchName::new(project, branch))
    }

    /// Whether a target is a branch that was made to be thrown away.
    pub async fn throw_away(&self, target: &Target) -> Result<bool, Failure> {
        let name = self.branch(target).await?;
        let found = find_branch(&*self.client, &name.project, &name.branch).await?;
        Ok(found.is_some_and(|branch| branch.is_throw_away() && !branch.is_deleted()))
    }

    /// The compute of a target that can write, as it is now; `None`: the branch has none.
    pub async fn look(&self, target: &Target) -> Result<Option<Endpoint>, Failure> {
        let branch = self.branch(target).await?;
        read_write_endpoint(&*self.client, &branch).await
    }

    /// Where the database of a target is. A suspended compute is a failure unless `wake` is set; then
    /// it is awake when this returns.
    pub async fn endpoint(&self, target: &Target, wake: bool) -> Result<PgEndpoint, Failure> {
        let branch = self.branch(target).await?;
        let found = self.awake(&branch, wake).await?;
        let user = self.client.identity().await?;
        let compute = self.compute(&found.endpoint.uid);
        let id = ComputeId {
            branch: self.branch_uid(&compute, &branch).await?.clone(),
            endpoint: found.endpoint.uid.clone(),
        };
        let hosts = &found.endpoint.status.hosts;
        let Some(host) = hosts.host.as_deref() else {
            let text = format!("{} has no address yet", found.endpoint.name);
            return Err(Failure::transient("lakebase::no_address", text));
        };
        let reach = |password: &Secret<String>| {
            let remote = Remote {
                host,
                port: hosts.port.unwrap_or(PORT),
                user,
                password,
                database: target.database.as_deref().unwrap_or(DEFAULT_DATABASE),
                ca_file: self.ca_file.as_deref(),
            };
            PgEndpoint::remote(&remote).of_compute(id.clone())
        };
        self.log_in(&compute, &found, reach).await
    }

    /// We have worked on a target until now.
    pub fn used(&self, target: &Target) {
        let now = self.client.clock().now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(target.clone(), now);
    }

    /// Why who looks at a target every `interval` leaves its compute alone: it sleeps, or it was last used
    /// by us and a look would keep it from falling asleep. A look that comes more seldom than it falls
    /// asleep does not keep it awake. One that is awake long after its time to suspend is kept awake by
    /// something else, and is looked at. Only the workspace is asked; no compute wakes.
    pub async fn left_alone(
        &self,
        target: &Target,
        interval: Duration,
    ) -> Result<Option<String>, Failure> {
        let branch = self.branch(target).await?;
        let Some(endpoint) = read_write_endpoint(&*self.client, &branch).await? else {
            return Ok(None);
        };
        let ours = self.used.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied();
        let now = self.client.clock().now();
        Ok(why_left_alone(&endpoint, (ours, interval), now))
    }

    /// Looks at the compute, and waits for one that starts.
    async fn awake(&self, branch: &BranchName, wake: bool) -> Result<Found, Failure> {
        let until = self.client.clock().now().plus(WAKE_PATIENCE);
        loop {
            let endpoint = self.read_write(branch).await?;
            let status = &endpoint.status;
            let state = match &status.pending_state {
                Some(EndpointState::Idle) => &EndpointState::Idle,
                Some(_) | None => &status.current_state,
            };
            match state {
                EndpointState::Active | EndpointState::Degraded => {
                    return Ok(Found { endpoint, sleeps: false });
                }
                EndpointState::Init if self.client.clock().now() < until => {
                    let next = self.client.clock().now().plus(WAKE_PAUSE);
                    self.client.clock().sleep_until(next).await;
                }
                EndpointState::Init => {
                    let text = format!("{} has not started", endpoint.name);
                    return Err(Failure::transient("lakebase::not_started", text));
                }
                EndpointState::Idle if status.disabled => {
                    let text = format!("{} is disabled: no connection can wake it", endpoint.name);
                    return Err(Failure::permanent("lakebase::compute_disabled", text)
                        .with_help("set `spec.disabled` of the endpoint to false"));
                }
                EndpointState::Idle | EndpointState::Unknown(_) if wake => {
                    return Ok(Found { endpoint, sleeps: true });
                }
                EndpointState::Idle => return Err(suspended(&endpoint)),
                EndpointState::Unknown(word) => {
                    let text =
                        format!("{} is in a state that is not known: `{word}`", endpoint.name);
                    return Err(Failure::permanent("lakebase::compute_state", text)
                        .with_help("connecting may wake it: allow it with `wake: true`"));
                }
            }
        }
    }

    async fn read_write(&self, branch: &BranchName) -> Result<Endpoint, Failure> {
        match read_write_endpoint(&*self.client, branch).await {
            Ok(Some(endpoint)) => Ok(endpoint),
            Ok(None) => {
                let text = format!("branch {branch} has no compute that can write");
                Err(Failure::permanent("lakebase::no_compute", text))
            }
            Err(failure) if failure.code == NOT_FOUND => {
                let text = format!("there is no {branch}");
                let missing = Failure::permanent("lakebase::no_branch", text);
                Err(match branches(&*self.client, &branch.project).await {
                    Ok(all) => {
                        let names: Vec<&str> = all.iter().map(super::Branch::id).collect();
                        missing.with_help(format!("the project has: {}", names.join(", ")))
                    }
                    Err(_) => missing.with_help("the workspace has no such project"),
                })
            }
            Err(failure) => Err(failure),
        }
    }

    fn compute(&self, uid: &str) -> Arc<Compute> {
        let mut computes = self.computes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(computes.entry(uid.to_owned()).or_default())
    }

    /// The branch that a compute belongs to; neither uid is ever given twice.
    async fn branch_uid<'a>(
        &self,
        compute: &'a Compute,
        name: &BranchName,
    ) -> Result<&'a String, Failure> {
        let ask = || async {
            let found = find_branch(&*self.client, &name.project, &name.branch).await?;
            found.map(|branch| branch.uid).ok_or_else(|| {
                Failure::transient("lakebase::no_branch", format!("there is no {name} any more"))
            })
        };
        compute.branch.get_or_try_init(ask).await
    }

    /// Gets a password and, unless it is known to work, tries it; waits for the compute to start.
    async fn log_in(
        &self,
        compute: &Compute,
        found: &Found,
        reach: impl Fn(&Secret<String>) -> PgEndpoint,
    ) -> Result<PgEndpoint, Failure> {
        let clock = self.client.clock();
        let began = clock.now();
        let mut login_pause = FIRST_LOGIN_PAUSE;
        loop {
            let name = &found.endpoint.name;
            let password = compute.password.get(clock, || self.lease(name)).await?.value;
            let endpoint = reach(&password);
            if !found.sleeps && compute.has_proven(&password) {
                return Ok(endpoint);
            }
            let Err(error) = knock(&endpoint, &self.limits).await else {
                compute.prove(password);
                return Ok(endpoint);
            };
            let (pause, patience) = match refusal(&error) {
                LoginRefusal::Unknown => {
                    compute.password.forget();
                    let pause = login_pause;
                    login_pause = (login_pause * 2).min(LONGEST_LOGIN_PAUSE);
                    (pause, LOGIN_PATIENCE)
                }
                LoginRefusal::NotYet if found.sleeps => (WAKE_PAUSE, WAKE_PATIENCE),
                LoginRefusal::NotYet | LoginRefusal::Other => return Err(error.into()),
            };
            let next = clock.now().plus(pause);
            if next > began.plus(patience) {
                return Err(error.into());
            }
            tracing::info!(%error, endpoint = %name, "trying again");
            clock.sleep_until(next).await;
        }
    }

    async fn lease(&self, endpoint: &str) -> Result<Lease, Failure> {
        let minted = self.client.mint(endpoint).await?;
        let life = minted.expires_at.since(self.client.clock().now());
        Ok(Lease {
            value: minted.token,
            renew_at: self.client.clock().now().plus(life.saturating_sub(RENEW_AHEAD)),
            expires_at: minted.expires_at,
        })
    }
}

impl Compute {
    fn has_proven(&self, password: &Secret<String>) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(password)
    }

    fn prove(&self, password: Secret<String>) {
        *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(password);
    }
}

fn why_left_alone(
    endpoint: &Endpoint,
    (ours, interval): (Option<Timestamp>, Duration),
    now: Timestamp,
) -> Option<String> {
    let status = &endpoint.status;
    if status.current_state == EndpointState::Idle && status.pending_state.is_none() {
        return Some(format!("{} is suspended", endpoint.name));
    }
    let (timeout, ours) = (status.suspend_timeout_duration?, ours?);
    let is_ours = status.last_active_time.is_none_or(|active| active <= ours.plus(OURS));
    let until = ours.plus(timeout).plus(OVERDUE);
    (is_ours && interval <= timeout && now < until).then(|| {
        let name = &endpoint.name;
        format!("nobody but us has used {name} since {ours}: it can fall asleep")
    })
}

/// What a refused connection means for who has just minted a password.
enum LoginRefusal {
    /// The compute does not know the password yet.
    Unknown,
    /// The compute has not started yet.
    NotYet,
    Other,
}

fn refusal(error: &PgError) -> LoginRefusal {
    let is_missing_role =
        error.server_message().is_some_and(|text| text.contains("does not exist"));
    match error.sqlstate() {
        // invalid_password, invalid_authorization_specification
        Some("28P01" | "28000") if !is_missing_role => LoginRefusal::Unknown,
        _ if error.retry_class() == RetryClass::Transient => LoginRefusal::NotYet,
        _ => LoginRefusal::Other,
    }
}

fn suspended(endpoint: &Endpoint) -> Failure {
    Failure::permanent(SUSPENDED, format!("{} is suspended, and is not woken", endpoint.name))
        .with_help("allow it: `wake: true` of the step, `--wake` on the command line")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_compute_that_sleeps_or_that_only_we_use_is_left_alone() {
        let at = |minute: u64| Timestamp::from_millis(0).plus(Duration::from_mins(minute));
        let compute = |state: &str, active: u64, timeout: Option<&str>| -> Endpoint {
            let status = json!({
                "current_state": state,
                "last_active_time": at(active),
                "suspend_timeout_duration": timeout,
            });
            serde_json::from_value(json!({ "name": "ep", "status": status })).unwrap()
        };
        let why = |endpoint: &Endpoint, ours: Option<u64>, interval: u64, now: u64| {
            let ours = (ours.map(at), Duration::from_mins(interval));
            why_left_alone(endpoint, ours, at(now))
        };
        let asleep = compute("IDLE", 3, Some("300s"));
        assert_eq!(why(&asleep, None, 1, 9), Some("ep is suspended".to_owned()));
        let awake = compute("ACTIVE", 3, Some("300s"));
        assert_eq!(why(&awake, None, 1, 4), None, "we have not looked yet");
        assert_eq!(why(&awake, Some(2), 1, 4), None, "somebody was active after us");
        assert!(why(&awake, Some(3), 1, 4).unwrap().contains("can fall asleep"));
        assert_eq!(why(&awake, Some(3), 6, 4), None, "so seldom a look keeps nothing awake");
        assert_eq!(why(&awake, Some(3), 1, 10), None, "something else keeps it awake");
        let always = compute("ACTIVE", 3, None);
        assert_eq!(why(&always, Some(3), 1, 4), None, "it never sleeps");
    }
}
