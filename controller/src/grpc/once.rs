//! Requests that are done once, however often they are sent.

use prost::Message;
use sculpt_proto::FieldError;
use sha2::{Digest as _, Sha256};

use super::request_id;
use crate::store::requests::Request;

/// The request of this id that wants `content`.
pub(super) fn once(id: &str, method: &'static str, content: &impl Message) -> Result<Request, FieldError> {
    let digest = Sha256::digest(content.encode_to_vec()).into();
    Ok(Request { id: request_id(id)?, method, digest })
}

/// The request that wants what `message` says besides its own `id`.
pub(super) fn once_of<M: Message + Clone>(
    message: &M,
    method: &'static str,
    id: impl Fn(&mut M) -> &mut String,
) -> Result<Request, FieldError> {
    let mut content = message.clone();
    let id = std::mem::take(id(&mut content));
    once(&id, method, &content)
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::{CreateJoinTokenRequest, RemoveUserRequest};

    use super::*;

    #[test]
    fn the_same_wish_is_the_same_whatever_its_id() {
        let request = |id: &str, name: &str| {
            let message = RemoveUserRequest { request_id: id.to_owned(), name: name.to_owned() };
            once_of(&message, "RemoveUser", |message| &mut message.request_id)
        };
        let [one, two] = [uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string()];
        let [first, again, other] =
            [(&one, "ben"), (&two, "ben"), (&one, "eve")].map(|(id, name)| request(id, name).expect("an id"));
        assert_eq!((first.id.to_string(), first.digest), (one, again.digest));
        assert_ne!(first.id, again.id);
        assert_ne!(first.digest, other.digest);
        assert_eq!(request("", "ben").expect_err("there is none").field, "request_id");
    }

    #[test]
    fn what_arrives_in_another_order_is_the_same_wish() {
        let id = uuid::Uuid::new_v4().to_string();
        let digest = |keys: &[&str]| {
            let labels = keys.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect();
            let message = CreateJoinTokenRequest { request_id: id.clone(), labels, ..Default::default() };
            once_of(&message, "CreateJoinToken", |message| &mut message.request_id).expect("an id").digest
        };
        let keys = ["a", "b", "c", "d", "e", "f"];
        let back: Vec<_> = keys.into_iter().rev().collect();
        assert_eq!(digest(&keys), digest(&back));
        assert_ne!(digest(&keys), digest(&keys[1..]));
    }
}
