//! Messages of a tunnel, which people's and executors' calls name alike.

use sculpt_proto::{FieldError, executor, v1};

use super::ends::{LARGEST, Piece};

macro_rules! pieces {
    ($($api:ident)::+) => {
        impl TryFrom<$($api)::+::TunnelRequest> for Piece {
            type Error = FieldError;

            fn try_from(request: $($api)::+::TunnelRequest) -> Result<Self, FieldError> {
                use $($api)::+::tunnel_request::Part;
                match request.part {
                    Some(Part::Data(data)) if data.len() <= LARGEST => Ok(Self::Data(data)),
                    Some(Part::Data(data)) => {
                        Err(FieldError::new("data", format!("has {} bytes; at most {LARGEST} are taken", data.len())))
                    }
                    Some(Part::End(_)) => Ok(Self::End),
                    Some(_) => Err(FieldError::new("part", "names a tunnel that is open already")),
                    None => Err(FieldError::new("part", "is missing")),
                }
            }
        }

        impl From<Piece> for $($api)::+::TunnelResponse {
            fn from(piece: Piece) -> Self {
                use $($api)::+::{TunnelEnd, tunnel_response::Part};
                let part = match piece {
                    Piece::Data(data) => Part::Data(data),
                    Piece::End => Part::End(TunnelEnd {}),
                };
                Self { part: Some(part) }
            }
        }
    };
}

pieces!(v1);
pieces!(executor::v1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_piece() {
        use executor::v1::{TunnelEnd, TunnelRequest, tunnel_request::Part};
        let piece = |part| Piece::try_from(TunnelRequest { part });
        assert_eq!(piece(Some(Part::Data(vec![7; LARGEST].into()))), Ok(Piece::Data(vec![7; LARGEST].into())));
        assert_eq!(piece(Some(Part::End(TunnelEnd {}))), Ok(Piece::End));
        for (part, field) in [
            (Some(Part::Data(vec![7; LARGEST + 1].into())), "data"),
            (Some(Part::TunnelId("again".into())), "part"),
            (None, "part"),
        ] {
            assert_eq!(piece(part).unwrap_err().field, field);
        }
    }
}
