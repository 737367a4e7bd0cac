//! People and executors have a listener each: who calls the other one is told where theirs is.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tonic::Status;

use super::is_grpc;

/// The listener that is not called here, and where it is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Other {
    /// What the paths of its services begin with.
    services: &'static str,
    text: std::sync::Arc<str>,
}

impl Other {
    /// For the listener of people: executors call `url`.
    pub fn of_executors(url: &str) -> Self {
        let text = format!("people and their tools call here, executors join and call at {url}");
        Self { services: "/sculpt.executor.", text: text.into() }
    }

    /// For the listener of executors: people call `url`.
    pub fn of_people(url: &str) -> Self {
        let text = format!("executors call here, people and their tools sign in and call at {url}");
        Self { services: "/sculpt.v1.", text: text.into() }
    }

    /// What a call to `path` is told that was meant for the other listener.
    fn meant(&self, path: &str) -> Option<Status> {
        path.starts_with(self.services).then(|| Status::unimplemented(&*self.text))
    }
}

/// Answers what was meant for the other listener, before anybody is asked who they are.
pub async fn shown(State(other): State<Other>, request: Request, next: Next) -> Response {
    match other.meant(request.uri().path()) {
        Some(status) if is_grpc(request.headers()) => status.into_http(),
        Some(_) | None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_knows_what_is_meant_for_the_other() {
        let people = Other::of_executors("https://controller.example:7434");
        let executors = Other::of_people("https://controller.example:7433");
        for (path, to_people, to_executors) in [
            ("/sculpt.v1.Identity/WhoAmI", false, true),
            ("/sculpt.executor.v1.Enrolment/Join", true, false),
            ("/sculpt.executor.v1.ExecutorService/Control", true, false),
            ("/grpc.health.v1.Health/Check", false, false),
            ("/git/x.git/info/refs", false, false),
            ("/", false, false),
        ] {
            let told = (people.meant(path).is_some(), executors.meant(path).is_some());
            assert_eq!(told, (to_people, to_executors), "{path}");
        }
        let told = people.meant("/sculpt.executor.v1.Enrolment/Join").expect("it was meant for executors");
        assert!(told.message().ends_with("at https://controller.example:7434"), "{told}");
    }
}
