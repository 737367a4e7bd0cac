//! People whom a host's controller lets sit beside its attempts.

use std::net::SocketAddr;

use sculpt_pairing::{Pass, Profile};
use sculpt_proto::{
    executor::v1::{Guest, Guests, control_response::Part},
    id::PairingId,
};

use super::world::{PEOPLE, Person, key, now};
use crate::host::Host;

/// Somebody for whom the host is at `address`, and what its controller says of them.
pub(super) fn visitor(
    host: &Host,
    attempt: &str,
    user: &str,
    profile: Profile,
    address: SocketAddr,
) -> (Person, Guest) {
    let (pairing, rights) = (PairingId::fresh(), profile.rights());
    let pass = Pass { pairing, attempt: attempt.parse().unwrap(), user: user.to_owned(), rights };
    let guest = Guest {
        pairing_id: pairing.to_string(),
        attempt_id: attempt.to_owned(),
        user: user.to_owned(),
        rights: rights.iter().map(|right| right.as_str().to_owned()).collect(),
        remaining: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
    };
    let certificate = pass.certify(key(9).public_key(), now(), &key(PEOPLE)).unwrap();
    (Person::new(host.root.path(), address, host.controller.relay().host, &pass, &certificate), guest)
}

/// The controller says that these are all.
pub(super) fn let_in(host: &Host, guests: Vec<Guest>) {
    let_in_by(host, guests, PEOPLE);
}

/// The same, and that people are certified by the authority of this number.
pub(super) fn let_in_by(host: &Host, guests: Vec<Guest>, authority: u8) {
    let authorities = vec![key(authority).public_key().to_openssh().unwrap()];
    host.controller.say(Part::Guests(Guests { guests, authorities }));
}
