//! A project that was made from an attempt is told what it is known by by who may change it.

use sculpt_core::rights::Role;
use sculpt_proto::v1::{EnsureProjectRequest, projects_client::ProjectsClient};
use tonic::Code;
use uuid::Uuid;

use super::World;

impl World {
    /// What the project `web` is known by, and whether that is yet to be told.
    async fn known_by(&self) -> (String, String, bool) {
        let sql = "SELECT left(root_commit, 1), remote, adopted FROM projects WHERE name = 'web'";
        sqlx::query_as(sql).fetch_one(&mut *self.stack.store().read().await.unwrap()).await.unwrap()
    }

    /// Who has changed `web`, according to the record.
    async fn changers(&self) -> Vec<String> {
        let sql = "SELECT actor FROM audit WHERE action = 'project.change' AND subject = 'project:web' ORDER BY id";
        sqlx::query_scalar(sql).fetch_all(&mut *self.stack.store().read().await.unwrap()).await.unwrap()
    }

    /// What comes of a clone in a folder named like `web`, with another history and remote: the uuid of its project.
    async fn clone_of(&self, token: &str) -> Result<String, Code> {
        let request = EnsureProjectRequest {
            request_id: Uuid::new_v4().to_string(),
            name: "web".into(),
            root_commit: "f".repeat(40),
            remote: "https://x/web".into(),
            ..EnsureProjectRequest::default()
        };
        let answer = ProjectsClient::new(self.stack.showing(token)).ensure_project(request).await;
        answer.map(|done| done.into_inner().project.unwrap().uuid).map_err(|status| status.code())
    }
}

#[tokio::test]
async fn an_adopted_project_is_changed_by_who_may_and_that_is_recorded() {
    let world = World::new().await;
    let adopt = "UPDATE projects SET adopted = true WHERE name = 'web'";
    sqlx::query(adopt).execute(&mut *world.stack.store().read().await.unwrap()).await.unwrap();
    let before = ("a".to_owned(), String::new(), true);
    let web = world.web.id().to_string();

    let stranger = world.user("eve", &[(Role::Viewer, Some("ops"))]).await;
    assert_eq!(world.clone_of(&stranger).await, Err(Code::PermissionDenied), "who does not see it");
    for role in [Role::Viewer, Role::Operator] {
        let token = world.user(role.as_str(), &[(role, Some("web"))]).await;
        assert_eq!(world.clone_of(&token).await, Ok(web.clone()), "the {role} uses it as it is");
        assert_eq!(world.known_by().await, before, "by the {role}");
    }
    assert_eq!(world.changers().await, Vec::<String>::new());

    let owner = world.user("carl", &[(Role::Maintainer, Some("web"))]).await;
    for _ in 0..2 {
        assert_eq!(world.clone_of(&owner).await, Ok(web.clone()));
        assert_eq!(world.known_by().await, ("f".to_owned(), "https://x/web".to_owned(), false));
        assert_eq!(world.changers().await, ["carl"], "once");
    }
    world.stack.stop().await;
}
