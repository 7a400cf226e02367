//! One resource, or all of a kind.

use serde::de::DeserializeOwned;

use super::api::{ReadApi, find};
use super::name::{BranchName, ProjectName, path_of};
use super::resource::{
    Branch, Database, Endpoint, EndpointType, Operation, Project, Role, Snapshot, read,
};
use crate::kernel::Failure;

/// All projects that the caller may see.
pub async fn projects(api: &dyn ReadApi) -> Result<Vec<Project>, Failure> {
    all(api, &path_of("projects"), "projects").await
}

/// A project by its id; a deleted one, which can still come back, has a `delete_time`.
pub async fn find_project(api: &dyn ReadApi, project: &str) -> Result<Option<Project>, Failure> {
    one(api, &ProjectName::new(project).path()).await
}

/// The branches of a project.
pub async fn branches(api: &dyn ReadApi, project: &str) -> Result<Vec<Branch>, Failure> {
    all(api, &ProjectName::new(project).branches_path(), "branches").await
}

/// A branch by its id; see [`Branch::is_deleted`].
pub async fn find_branch(
    api: &dyn ReadApi,
    project: &str,
    branch: &str,
) -> Result<Option<Branch>, Failure> {
    one(api, &BranchName::new(project, branch).path()).await
}

/// The endpoints of a branch.
pub async fn endpoints(
    api: &dyn ReadApi,
    project: &str,
    branch: &str,
) -> Result<Vec<Endpoint>, Failure> {
    all(api, &BranchName::new(project, branch).collection_path("endpoints"), "endpoints").await
}

/// An endpoint by its id.
pub async fn find_endpoint(
    api: &dyn ReadApi,
    branch: &BranchName,
    endpoint: &str,
) -> Result<Option<Endpoint>, Failure> {
    one(api, &branch.endpoint(endpoint).path()).await
}

/// The endpoint of a branch that can write.
pub async fn read_write_endpoint(
    api: &dyn ReadApi,
    branch: &BranchName,
) -> Result<Option<Endpoint>, Failure> {
    let all = endpoints(api, &branch.project, &branch.branch).await?;
    Ok(all.into_iter().find(|one| one.status.endpoint_type == EndpointType::ReadWrite))
}

/// The roles of a branch.
pub async fn roles(api: &dyn ReadApi, project: &str, branch: &str) -> Result<Vec<Role>, Failure> {
    all(api, &BranchName::new(project, branch).collection_path("roles"), "roles").await
}

/// A role by its id.
pub async fn find_role(
    api: &dyn ReadApi,
    branch: &BranchName,
    role: &str,
) -> Result<Option<Role>, Failure> {
    one(api, &format!("{}/{role}", branch.collection_path("roles"))).await
}

/// The databases of a branch.
pub async fn databases(
    api: &dyn ReadApi,
    project: &str,
    branch: &str,
) -> Result<Vec<Database>, Failure> {
    all(api, &BranchName::new(project, branch).collection_path("databases"), "databases").await
}

/// A database by its id.
pub async fn find_database(
    api: &dyn ReadApi,
    branch: &BranchName,
    database: &str,
) -> Result<Option<Database>, Failure> {
    one(api, &format!("{}/{database}", branch.collection_path("databases"))).await
}

/// The snapshots of a project.
pub async fn snapshots(api: &dyn ReadApi, project: &str) -> Result<Vec<Snapshot>, Failure> {
    all(api, &ProjectName::new(project).snapshots_path(), "snapshots").await
}

/// An operation by its name; `None` when the service has forgotten it.
pub async fn operation(api: &dyn ReadApi, name: &str) -> Result<Option<Operation>, Failure> {
    one(api, &path_of(name)).await
}

async fn one<T: DeserializeOwned>(api: &dyn ReadApi, path: &str) -> Result<Option<T>, Failure> {
    find(api, path).await?.map(|found| read(path, found)).transpose()
}

async fn all<T: DeserializeOwned>(
    api: &dyn ReadApi,
    path: &str,
    plural: &str,
) -> Result<Vec<T>, Failure> {
    let found = api.list(path, plural).await?;
    found.into_iter().map(|resource| read(path, resource)).collect()
}
