//! What people do beside an agent, as the attempt's journal holds it.

use std::time::Duration;

use sculpt_pairing::Role;
use sculpt_proto::id::{PairingId, SeatId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::text::ByteText;

/// What a person did beside an agent. It moves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Seat {
    /// They sat down.
    Attached {
        /// This one time.
        seat: SeatId,
        /// What allows it.
        pairing: PairingId,
        /// Their name.
        user: String,
        /// As what.
        #[serde(serialize_with = "write_role", deserialize_with = "read_role")]
        role: Role,
    },
    /// They typed, without a longer pause.
    Typed {
        /// Where.
        seat: SeatId,
        /// Their name.
        user: String,
        /// How many bytes.
        bytes: u64,
        /// From the first one to the last.
        took: Duration,
        /// The first of them, where the project has it recorded.
        #[serde(default, skip_serializing_if = "is_nothing")]
        content: ByteText,
    },
    /// They got up, or were made to.
    Detached {
        /// From where.
        seat: SeatId,
        /// One sentence for people when it was not their wish; else empty.
        why: String,
    },
}

impl Seat {
    /// The same without what was typed.
    #[must_use]
    pub fn silent(self) -> Self {
        match self {
            Self::Typed { seat, user, bytes, took, .. } => {
                Self::Typed { seat, user, bytes, took, content: ByteText::default() }
            }
            seat @ (Self::Attached { .. } | Self::Detached { .. }) => seat,
        }
    }
}

fn is_nothing(text: &ByteText) -> bool {
    text.0.is_empty()
}

fn write_role<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.as_str())
}

fn read_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Seats that nobody was said to have left, in the order in which they were taken.
pub fn taken<'a>(seats: impl IntoIterator<Item = &'a Seat>) -> Vec<SeatId> {
    let mut taken = Vec::new();
    for seat in seats {
        match seat {
            Seat::Attached { seat, .. } => taken.push(*seat),
            Seat::Detached { seat, .. } => taken.retain(|one| one != seat),
            Seat::Typed { .. } => {}
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_taken_until_somebody_is_said_to_have_left_it() {
        let (first, second) = (SeatId::fresh(), SeatId::fresh());
        let attached =
            |seat| Seat::Attached { seat, pairing: PairingId::fresh(), user: "ada".to_owned(), role: Role::Driver };
        let typed = Seat::Typed {
            seat: first,
            user: "ada".to_owned(),
            bytes: 3,
            took: Duration::from_millis(1_500),
            content: ByteText(b"a\xff\r".to_vec()),
        };
        assert!(!serde_json::to_string(&typed.clone().silent()).unwrap().contains("content"));
        let left = |seat| Seat::Detached { seat, why: String::new() };
        assert_eq!(taken(&[attached(first), typed.clone(), attached(second)]), [first, second]);
        assert_eq!(taken(&[attached(first), attached(second), left(first), left(first)]), [second]);
        assert!(taken(&[left(first)]).is_empty());
        for seat in [attached(first), typed, left(first)] {
            let json = serde_json::to_string(&seat).unwrap();
            assert_eq!(serde_json::from_str::<Seat>(&json).unwrap(), seat, "{json}");
        }
    }
}
