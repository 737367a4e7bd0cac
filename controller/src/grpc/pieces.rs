//! Messages of tunnels. Two packages have them, for people and for executors, and both mean the same by them.

use std::time::Duration;

use sculpt_proto::{FieldError, required};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::relay::Piece;

/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);

/// Whom a tunnel leads to, as `named` reads it in the first message.
pub(crate) async fn first<M, T>(
    inbound: &mut Streaming<M>,
    named: impl FnOnce(M) -> Result<T, FieldError>,
) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded("the tunnel was opened, and nothing was said through it");
    let first = timeout(FIRST, inbound.message()).await.map_err(silent)??;
    Ok(first.ok_or_else(nameless).and_then(named)?)
}

/// What is wrong with a first message that names nobody.
pub(crate) fn nameless() -> FieldError {
    FieldError::new("part", "the first message must say whom the tunnel leads to")
}

/// The conversions of one package, in whose first message stands `$first`.
macro_rules! pieces {
    ($package:ident: $($path:ident)::+, $first:ident) => {
        mod $package {
            use sculpt_proto::$($path)::+::{
                TunnelEnd, TunnelRequest, TunnelResponse, tunnel_request::Part as Said, tunnel_response::Part as Told,
            };

            use super::{FieldError, Piece, required};

            impl TryFrom<TunnelRequest> for Piece {
                type Error = FieldError;

                fn try_from(request: TunnelRequest) -> Result<Self, FieldError> {
                    match required(request.part, "part")? {
                        Said::Data(data) => Self::data(data),
                        Said::End(_) => Ok(Self::End),
                        Said::$first(_) => Err(Self::named_again()),
                    }
                }
            }

            impl From<Piece> for TunnelResponse {
                fn from(piece: Piece) -> Self {
                    let part = match piece {
                        Piece::Data(data) => Told::Data(data),
                        Piece::End => Told::End(TunnelEnd {}),
                    };
                    Self { part: Some(part) }
                }
            }

            #[test]
            fn a_message_is_a_piece() {
                let piece = |part| Piece::try_from(TunnelRequest { part }).map_err(|error| error.field);
                let data = bytes::Bytes::from_static(b"SSH-2.0");
                for (said, told, is) in [
                    (Said::Data(data.clone()), Told::Data(data.clone()), Piece::Data(data)),
                    (Said::End(TunnelEnd {}), Told::End(TunnelEnd {}), Piece::End),
                ] {
                    assert_eq!(piece(Some(said)), Ok(is.clone()));
                    assert_eq!(TunnelResponse::from(is), TunnelResponse { part: Some(told) });
                }
                assert_eq!(piece(Some(Said::$first("again".into()))), Err("part"));
                assert_eq!(piece(None), Err("part"));
            }
        }
    };
}

pieces!(people: v1, Pairing);
pieces!(executors: executor::v1, TunnelId);
