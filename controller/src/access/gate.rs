//! The way in for people: a token with every call, and the rule of its method.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use sculpt_proto::id::ProjectId;
use sculpt_tls::{Kind, Token};
use tonic::{Code, Status};

use super::{Authority, Caller, Fetch, Rule, Unknown, guarded::Guarded, rule};
use crate::web::{
    guesses::{Guesses, too_many},
    is_grpc,
    listen::Peer,
};

/// Lets through whom an authority knows, to where their rights reach. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    authority: Authority,
    guesses: Guesses,
}

impl Gate {
    /// For those whom `authority` knows; who is nobody too often waits, as `guesses` has it.
    pub fn new(authority: Authority, guesses: Guesses) -> Self {
        Self { authority, guesses }
    }

    async fn judge(&self, head: &Parts) -> Result<([u8; 32], Caller), Status> {
        let peer = head.extensions.get::<Peer>();
        let address = peer.map(|peer| peer.address.ip().to_string()).unwrap_or_default();
        if let Some(origin) = head.headers.get(header::ORIGIN)
            && origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://")) != host(head)
        {
            return Err(Status::permission_denied("web pages of other origins may not call this controller"));
        }
        let shown = text(&head.headers, header::AUTHORIZATION);
        if shown.is_none() && is_git(&head.uri) {
            // Its way to ask whether it needs a password.
            return Err(Unknown::Missing.into());
        }
        let shown = shown.and_then(|value| credential(value, is_git(&head.uri))).ok_or(Unknown::Missing);
        let token = shown.and_then(|shown| Ok(Token::parse(&shown, Kind::User)?));
        let (digest, caller) = self.known(token.map(|token| token.secret.digest()), peer, &address).await?;
        if let Some(peer) = peer {
            peer.proved();
        }
        admit(head.uri.path(), &caller)?;
        Ok((digest, caller))
    }

    /// Who shows it. Who was let in a while ago does not wait for others of its address that guess.
    async fn known(
        &self,
        digest: Result<[u8; 32], Unknown>,
        peer: Option<&Peer>,
        address: &str,
    ) -> Result<([u8; 32], Caller), Status> {
        let remembered = digest.as_ref().is_ok_and(|digest| self.authority.remembers(digest));
        let stranger = match peer.filter(|_| !remembered) {
            Some(peer) => Some(self.guesses.enter(peer.address.ip()).await.map_err(too_many)?),
            None => None,
        };
        let found = match (digest, &stranger) {
            (Err(unknown), _) => Err(unknown),
            (Ok(digest), None) => self.authority.by_digest(digest, address).await.map(|caller| (digest, caller)),
            (Ok(digest), Some(stranger)) => {
                let _asks = stranger.asks().await;
                self.authority.by_digest(digest, address).await.map(|caller| (digest, caller))
            }
        };
        let wrong = found.as_ref().is_err_and(|unknown| !matches!(unknown, Unknown::Store(_)));
        match (stranger, peer) {
            (Some(stranger), _) if !wrong => stranger.right(),
            (None, Some(peer)) if wrong => self.guesses.wrong(peer.address.ip()),
            _ => {}
        }
        Ok(found?)
    }
}

/// Whether `caller` gets through to what stands at `path`.
fn admit(path: &str, caller: &Caller) -> Result<(), Status> {
    if let Some(repository) = path.strip_prefix("/git/") {
        let name = repository.split('/').next().unwrap_or_default();
        let project = name.strip_suffix(".git").and_then(|id| id.parse::<ProjectId>().ok());
        // Who serves them undoes escapes: what is no repository's name as it stands may be one then.
        let project = project.ok_or_else(|| Status::not_found(crate::web::git_http::NO_REPOSITORY))?;
        if Fetch::of_caller(caller, project).is_some() {
            return Ok(());
        }
        return Err(Status::not_found(crate::git::GitError::NoProject(project).to_string()));
    }
    match rule(path) {
        Some(Rule::Known) => Ok(()),
        Some(Rule::Somewhere(right)) => Ok(caller.somewhere(right)?),
        Some(Rule::Everywhere(right)) => Ok(caller.everywhere(right)?),
        None => Err(Status::unimplemented(format!("this controller does not serve {path}"))),
    }
}

/// Lets a call through, with the [`Caller`] among its extensions, or answers it. A call that takes long, and an answer that
/// goes on for long, end when their caller loses a right.
pub async fn enter(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let (grpc, git) = (is_grpc(&head.headers), is_git(&head.uri));
    match gate.judge(&head).await {
        Ok((digest, caller)) => {
            head.extensions.insert(caller.clone());
            // An answer that is there counts more: somebody may have just given their own right away.
            let answer = tokio::select! {
                biased;
                answer = next.run(Request::from_parts(head, body)) => answer,
                status = gate.authority.clone().lost(digest, caller.clone()) => return refused(status, git, grpc),
            };
            let lost = gate.authority.lost(digest, caller);
            answer.map(|body| Body::new(Guarded::new(body, lost, grpc)))
        }
        Err(refusal) => {
            tracing::debug!(code = ?refusal.code(), path = head.uri.path(), "refused a call");
            refused(refusal, git, grpc)
        }
    }
}

fn refused(refusal: Status, git: bool, grpc: bool) -> Response {
    if grpc {
        return refusal.into_http::<Body>();
    }
    let code = match refusal.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::NotFound | Code::Unimplemented => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = Response::new(Body::from(format!("{}\n", refusal.message())));
    *response.status_mut() = code;
    if let Some(wait) = refusal.metadata().get(header::RETRY_AFTER.as_str())
        && let Ok(wait) = HeaderValue::from_bytes(wait.as_bytes())
    {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    if code == StatusCode::UNAUTHORIZED {
        let scheme = if git { "Basic realm=\"sculpt\", charset=\"UTF-8\"" } else { "Bearer realm=\"sculpt\"" };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    }
    response
}

/// The token in an `authorization` header; a password counts only where git asks.
fn credential(value: &str, git: bool) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if git && scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

/// To whom the call was sent.
fn host(head: &Parts) -> Option<&str> {
    let named = head.uri.authority().map(http::uri::Authority::as_str);
    named.or_else(|| text(&head.headers, header::HOST))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_git(uri: &Uri) -> bool {
    uri.path().starts_with("/git/")
}
