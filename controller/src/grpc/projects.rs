//! Projects: registered on first use, listed, removed.

use sculpt_proto::{FieldError, commit_id, v1};
use tonic::{Request, Response, Status};

use super::{
    Api, caller, convert, cursor,
    once::{once, once_of},
};
use crate::store::projects::{Ensured, Wish};

#[tonic::async_trait]
impl v1::projects_server::Projects for Api {
    async fn ensure_project(
        &self,
        request: Request<v1::EnsureProjectRequest>,
    ) -> Result<Response<v1::EnsureProjectResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let request = once_of(&message, "EnsureProject", |message| &mut message.request_id)?;
        let wish = wish(message)?;
        let (project, how) = self.store.ensure_project(caller, request, wish).await?;
        if how != Ensured::Known {
            self.bus.journal();
        }
        Ok(Response::new(v1::EnsureProjectResponse {
            project: Some(convert::project(project)),
            created: how == Ensured::Created,
            restored: how == Ensured::Restored,
        }))
    }

    async fn list_projects(
        &self,
        request: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsResponse>, Status> {
        let sees = caller(&request)?.sees();
        let message = request.into_inner();
        let after = cursor::page(&message.page_token)?;
        let limit = cursor::page_size(message.page_size);
        let mut projects = self.store.list_projects(&sees, after.as_deref(), limit + 1).await?;
        let more = projects.len() > limit as usize;
        projects.truncate(limit as usize);
        let next = projects.last().filter(|_| more).map(|last| cursor::page_token(&last.name)).unwrap_or_default();
        let projects = projects.into_iter().map(convert::project).collect();
        Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token: next }))
    }

    async fn remove_project(
        &self,
        request: Request<v1::RemoveProjectRequest>,
    ) -> Result<Response<v1::RemoveProjectResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let content = v1::RemoveProjectRequest { request_id: String::new(), ..message.clone() };
        let request = once(&message.request_id, "RemoveProject", &content)?;
        let project = match self.store.removed_project(&caller, &request).await? {
            Some(gone) => gone,
            None => {
                let found = self.store.project(&caller.sees(), &message.project).await?;
                self.store.remove_project(caller.within(&found)?, request, message.force).await?
            }
        };
        self.bus.journal();
        Ok(Response::new(v1::RemoveProjectResponse { project: Some(convert::project(project)) }))
    }
}

fn wish(message: v1::EnsureProjectRequest) -> Result<Wish, FieldError> {
    if message.remote.len() > 2048 || message.remote.chars().any(char::is_control) {
        return Err(FieldError::new("remote", "has more than 2048 bytes, or control characters"));
    }
    if message.name.len() > 4096 {
        return Err(FieldError::new("name", "has more than 4096 bytes"));
    }
    Ok(Wish {
        root_commit: commit_id(&message.root_commit, "root_commit")?,
        name: message.name,
        exact_name: message.exact_name,
        remote: without_secrets(message.remote),
        default_agent: message.default_agent,
        commit_changes: message.commit_changes,
        record_typing: message.record_typing,
    })
}

/// A remote's URL without passwords and tokens, which must not stand in a database that everybody lists.
fn without_secrets(remote: String) -> String {
    let Ok(mut url) = url::Url::parse(&remote) else { return remote };
    let web = url.scheme() == "http" || url.scheme() == "https";
    if url.password().is_none() && (!web || url.username().is_empty()) {
        return remote;
    }
    // Neither fails for a URL that had one.
    let _ = url.set_password(None);
    if web {
        let _ = url.set_username("");
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn remotes_are_kept_without_secrets() {
        for (given, kept) in [
            ("https://me:secret@host/a.git", "https://host/a.git"),
            ("https://token@host/a.git", "https://host/a.git"),
            ("https://host/a.git", "https://host/a.git"),
            ("ssh://git@host/a.git", "ssh://git@host/a.git"),
            ("ssh://git:secret@host/a.git", "ssh://git@host/a.git"),
            ("git@host:a.git", "git@host:a.git"),
            ("/srv/a.git", "/srv/a.git"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(given.to_owned()), kept);
        }
    }
}
