//! Who may call: a token with every call, and no web page of somebody else's.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tonic::Status;

use super::tokens::Token;

/// Who calls. Made by this module alone, so whoever is handed one knows that the caller has shown a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person(Arc<str>);

impl Person {
    /// Their name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Lets through who shows a token.
#[derive(Clone, Debug)]
pub struct Authoriser {
    token: Arc<Token>,
    person: Person,
}

/// Why a call was not let through.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It was sent to a name that is not ours: a web page may have made a browser send it.
    Host,
    /// A web page of another site made a browser send it.
    Origin,
    /// No token, or not ours.
    Token { shown: bool },
}

impl Authoriser {
    /// Whoever shows `token` is `name`.
    pub fn new(token: Token, name: &str) -> Self {
        Self { token: Arc::new(token), person: Person(name.into()) }
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<Person, Refusal> {
        let host = uri.authority().map(|authority| authority.as_str().to_owned());
        let host = host.or_else(|| text(headers, header::HOST).map(str::to_owned)).ok_or(Refusal::Host)?;
        if !is_loopback(&host) {
            return Err(Refusal::Host);
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) != Some(host.as_str())
        {
            return Err(Refusal::Origin);
        }
        let shown = text(headers, header::AUTHORIZATION).and_then(|value| credential(value, is_git(uri)));
        match &shown {
            Some(shown) if self.token.is(shown) => Ok(self.person.clone()),
            shown => Err(Refusal::Token { shown: shown.is_some() }),
        }
    }
}

/// Lets a call through, with the [`Person`] among its extensions, or answers it.
pub async fn authorise(State(authoriser): State<Authoriser>, mut request: Request, next: Next) -> Response {
    match authoriser.judge(request.uri(), request.headers()) {
        Ok(person) => {
            request.extensions_mut().insert(person);
            next.run(request).await
        }
        Err(refusal) => {
            tracing::debug!(?refusal, path = request.uri().path(), "refused a call");
            refused(&refusal, is_git(request.uri()), is_grpc(request.headers()))
        }
    }
}

fn refused(refusal: &Refusal, git: bool, grpc: bool) -> Response {
    let (code, status) = match refusal {
        Refusal::Host => {
            let text = "this listener answers only to localhost, 127.0.0.1 and [::1]; use one of these in the URL";
            (StatusCode::MISDIRECTED_REQUEST, Status::permission_denied(text))
        }
        Refusal::Origin => {
            let text = "web pages of other origins may not call this controller";
            (StatusCode::FORBIDDEN, Status::permission_denied(text))
        }
        Refusal::Token { shown: false } => {
            let text =
                "this call needs a token: `authorization: Bearer …`, from the file tokens/user in the data directory";
            (StatusCode::UNAUTHORIZED, Status::unauthenticated(text))
        }
        Refusal::Token { shown: true } => {
            let text = "the token is not the one of this controller; read it anew from its token file";
            (StatusCode::UNAUTHORIZED, Status::unauthenticated(text))
        }
    };
    if grpc {
        return status.into_http::<Body>();
    }
    let mut response = Response::new(Body::from(format!("{}\n", status.message())));
    *response.status_mut() = code;
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

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_git(uri: &Uri) -> bool {
    uri.path().starts_with("/git/")
}

/// Whether the caller speaks gRPC, and so wants its refusals in gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    text(headers, header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/grpc"))
}

/// Whether `host`, with a port or without, is this machine by a name that no DNS server answers for.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || port.starts_with(':') => name,
            Some(_) | None => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authoriser() -> (Authoriser, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let token = Token::load(&path).expect("a token");
        let text = std::fs::read_to_string(path).expect("it is there").trim().to_owned();
        (Authoriser::new(token, "ada"), text)
    }

    fn judge(authoriser: &Authoriser, path: &str, pairs: &[(&'static str, &str)]) -> Result<Person, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        authoriser.judge(&path.parse().expect("a path"), &headers)
    }

    #[test]
    fn lets_through_who_shows_the_token() {
        let (authoriser, token) = authoriser();
        let bearer = format!("Bearer {token}");
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("git:{token}")));
        let ask = |path, value: &str| judge(&authoriser, path, &[("host", "localhost:7433"), ("authorization", value)]);
        assert_eq!(ask("/x", &bearer).expect("it is let through").name(), "ada");
        assert!(ask("/git/p.git/info/refs", &bearer).is_ok());
        assert!(ask("/git/p.git/info/refs", &basic).is_ok());
        assert_eq!(ask("/x", &basic), Err(Refusal::Token { shown: false }), "a password is for git alone");
        assert_eq!(ask("/x", "Bearer nonsense"), Err(Refusal::Token { shown: true }));
        assert_eq!(judge(&authoriser, "/x", &[("host", "localhost")]), Err(Refusal::Token { shown: false }));
    }

    #[test]
    fn refuses_what_a_browser_was_made_to_send() {
        let (authoriser, token) = authoriser();
        let bearer = format!("Bearer {token}");
        let ask = |host: &str, origin: &str| {
            judge(&authoriser, "/x", &[("host", host), ("origin", origin), ("authorization", &bearer)])
        };
        assert!(ask("127.0.0.1:7433", "http://127.0.0.1:7433").is_ok());
        assert_eq!(ask("127.0.0.1:7433", "http://evil.example"), Err(Refusal::Origin));
        assert_eq!(ask("127.0.0.1:7433", "null"), Err(Refusal::Origin));
        assert_eq!(ask("evil.example:7433", "http://evil.example:7433"), Err(Refusal::Host));
        assert_eq!(judge(&authoriser, "/x", &[("authorization", &bearer)]), Err(Refusal::Host));
    }

    #[test]
    fn knows_its_own_names() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.3.2.1:80", "[::1]:80", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.example", "10.0.0.1", "[::1].evil.example", "[fe80::1]:80", "", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
