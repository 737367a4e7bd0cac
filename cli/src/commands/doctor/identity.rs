//! Whom we trust, who we are to the controller, and until when.

use chrono::{DateTime, TimeDelta, Utc};
use sculpt_proto::v1::{WhoAmIRequest, WhoAmIResponse};
use sculpt_tls::Server;

use super::{Finding, Verdict};
use crate::{
    authority,
    client::{Client, unusable},
    config::Context,
    output::{
        identity::roles,
        time::{distance, instant},
    },
};

/// When the end of a token is near enough to be thought of.
const SOON: TimeDelta = TimeDelta::days(3);

pub(super) async fn check(client: &Client, findings: &mut Vec<Finding>) {
    findings.push(trust(&client.context));
    let who = client.read("ask the controller who we are", client.identity().who_am_i(WhoAmIRequest {})).await;
    findings.push(match who {
        Ok(who) => identity(&who, client.context.address(), Utc::now()),
        Err(failure) => Finding::failure("identity", &failure),
    });
}

/// Whose word it is that this is the controller; it was reached, so it has proved that.
fn trust(context: &Context) -> Finding {
    let Some(pin) = context.pin else {
        return Finding::ok("trust", "a public certificate proves the controller; the token names no authority");
    };
    match authority::server(context) {
        Ok(Server::Known(trust)) if trust.pins().count() > 1 => {
            let count = trust.pins().count();
            Finding::ok(
                "trust",
                format!("{count} authorities may certify the controller, as one takes over; the token names {pin}"),
            )
        }
        Ok(_) => Finding::ok("trust", format!("the controller has proved the authority that the token names, {pin}")),
        Err(error) => Finding::failure("trust", &unusable(&error)),
    }
}

fn identity(who: &WhoAmIResponse, address: &str, now: DateTime<Utc>) -> Finding {
    const NAME: &str = "identity";
    let user = who.user.as_ref().map_or("nobody", |user| user.name.as_str());
    if who.roles.is_empty() {
        let remedy = format!("`sculpt admin user grant {user} ROLE` of an admin gives one");
        return Finding::bad(Verdict::Warn, NAME, format!("{user} has no role here"), remedy);
    }
    let left = instant(who.token.as_ref().and_then(|token| token.expires_at.as_ref())).map(|end| end - now);
    let until = left.map_or("does not run out".to_owned(), |left| format!("runs out {}", distance(left)));
    let text = format!("{user}, {}; the token {until}", roles(&who.roles));
    if left.is_some_and(|left| left < SOON) {
        let remedy = format!("`sculpt token create` makes another one, with which `sculpt login {address}` signs in");
        return Finding::bad(Verdict::Warn, NAME, text, remedy);
    }
    Finding::ok(NAME, text)
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::{RoleBinding, Token, User};

    use super::*;

    #[test]
    fn the_end_of_a_token_is_told_beforehand() {
        let now = Utc::now();
        let who = |left: Option<TimeDelta>, roles: usize| WhoAmIResponse {
            user: Some(User { name: "ada".to_owned(), ..User::default() }),
            roles: vec![RoleBinding { role: "viewer".to_owned(), project: "website".to_owned() }; roles],
            token: Some(Token { expires_at: left.map(|left| sculpt_proto::timestamp(now + left)), ..Token::default() }),
            ..WhoAmIResponse::default()
        };
        for (left, roles, verdict, words) in [
            (None, 1, Verdict::Ok, "ada, viewer@website; the token does not run out"),
            (Some(TimeDelta::days(30)), 1, Verdict::Ok, "runs out in 30d"),
            (Some(TimeDelta::days(2)), 1, Verdict::Warn, "runs out in 2d"),
            (None, 0, Verdict::Warn, "ada has no role here"),
        ] {
            let finding = identity(&who(left, roles), "https://controller.example:7433", now);
            assert!(finding.verdict == verdict && finding.text.contains(words), "{finding:?}");
            assert_eq!(finding.remedy.is_some(), verdict == Verdict::Warn, "{finding:?}");
        }
    }
}
