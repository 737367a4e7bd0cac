//! People and executors have a listener each: who calls the other one is told where theirs is.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tonic::Status;

use super::{
    guesses::{Guesses, too_many},
    is_grpc,
    listen::Peer,
};

/// The listener that is not called here, and where it is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OtherListener {
    /// What the paths of its services begin with.
    services: &'static str,
    text: std::sync::Arc<str>,
    /// Those of the listener that is called: nobody is asked who they are, so each such call is a wrong one.
    guesses: Guesses,
}

impl OtherListener {
    /// For the listener of people: executors call `url`.
    pub fn of_executors(url: &str, guesses: Guesses) -> Self {
        let text = format!("people and their tools call here, executors join and call at {url}");
        Self { services: "/sculpt.executor.", text: text.into(), guesses }
    }

    /// For the listener of executors: people call `url`.
    pub fn of_people(url: &str, guesses: Guesses) -> Self {
        let text = format!("executors call here, people and their tools sign in and call at {url}");
        Self { services: "/sculpt.v1.", text: text.into(), guesses }
    }

    /// What a call to `path` is told that was meant for the other listener.
    fn meant(&self, path: &str) -> Option<Status> {
        path.starts_with(self.services).then(|| Status::unimplemented(&*self.text))
    }
}

/// Answers what was meant for the other listener, before anybody is asked who they are. That answer is no secret: who is at
/// the wrong door has nothing to show there.
pub async fn shown(State(other): State<OtherListener>, request: Request, next: Next) -> Response {
    let told = other.meant(request.uri().path()).filter(|_| is_grpc(request.headers()));
    let Some(told) = told else { return next.run(request).await };
    let status = match request.extensions().get::<Peer>().map(|peer| peer.address.ip()) {
        Some(address) => other.guesses.enter(address).await.map_or_else(too_many, |_wrong| told),
        None => told,
    };
    status.into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_knows_what_is_meant_for_the_other() {
        let guesses = Guesses::default();
        let people = OtherListener::of_executors("https://controller.example:7434", guesses.clone());
        let executors = OtherListener::of_people("https://controller.example:7433", guesses.elsewhere());
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
