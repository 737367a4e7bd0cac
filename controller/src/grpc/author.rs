//! Whom git names as the author of what is committed for a task: whom the client says, as in any clone of theirs, and where
//! it says nothing who asks. Who asked is never taken from here; that is who has proved it.

use sculpt_proto::v1::Requester;
use tonic::Status;

use super::Api;
use crate::access::Caller;

impl Api {
    /// The author of a task of `caller`, whose client has `said` this.
    pub(super) async fn author(&self, caller: &Caller, said: Option<Requester>) -> Result<Requester, Status> {
        let said = said.unwrap_or_default();
        if is_whole(&said) {
            return Ok(said);
        }
        let user = self.store.caller(caller).await?;
        Ok(filled(said, Requester { name: user.name, email: user.email }))
    }
}

fn is_whole(person: &Requester) -> bool {
    !person.name.trim().is_empty() && !person.email.trim().is_empty()
}

/// `said`, with what it lacks from `proved`.
fn filled(said: Requester, proved: Requester) -> Requester {
    let or = |said: String, proved: String| if said.trim().is_empty() { proved } else { said };
    Requester { name: or(said.name, proved.name), email: or(said.email, proved.email) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_does_not_say_is_who_asks() {
        let of = |name: &str, email: &str| Requester { name: name.into(), email: email.into() };
        for (said, proved, author) in [
            (of("Ben Bo", "ben@home"), of("ben", "ben@work"), of("Ben Bo", "ben@home")),
            (of("", ""), of("ben", "ben@work"), of("ben", "ben@work")),
            (of(" ", ""), of("ben", ""), of("ben", "")),
            (of("Ben Bo", ""), of("ben", "ben@work"), of("Ben Bo", "ben@work")),
            (of("", "ben@home"), of("ben", "ben@work"), of("ben", "ben@home")),
        ] {
            assert_eq!(is_whole(&said), said == author, "{said:?}");
            assert_eq!(filled(said, proved), author);
        }
    }
}
