//! The audit record for people: who did what, to what, how, why, by which token and from where.

use sculpt_proto::v1::AuditEntry;
use serde_json::{Map, Value};

use super::{
    clean,
    identity::short,
    table::{GAP, columns_of},
    time::{brief, clock},
};

/// Where an entry that is wider than the terminal goes on: below who did it.
const INDENT: &str = "                             ";

/// An entry on one line, or on several where a terminal of `width` columns is narrower.
pub(crate) fn lines(entry: &AuditEntry, width: Option<u16>) -> String {
    let head = format!(
        "{:>6}  {:<19}  {:<12}  {:<18}",
        entry.sequence,
        clock(entry.at.as_ref()),
        clean(&entry.actor),
        clean(&entry.action)
    );
    let mut lines = vec![head];
    for piece in pieces(entry).iter().filter(|piece| !piece.is_empty()).map(|piece| clean(piece)) {
        let last = lines.last().map_or(0, |last| columns_of(last));
        let fits = width.is_none_or(|width| last.saturating_add(GAP).saturating_add(columns_of(&piece)) <= width);
        match lines.last_mut() {
            Some(last) if fits => last.push_str(&format!("  {piece}")),
            Some(_) | None => lines.push(format!("{INDENT}{piece}")),
        }
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

fn pieces(entry: &AuditEntry) -> Vec<String> {
    let mut pieces = vec![entry.subject.clone()];
    match serde_json::from_str(&entry.details) {
        Ok(Value::Object(details)) => pieces.extend(told(&details, &entry.project)),
        Ok(Value::Null) => pieces.extend(within(&entry.project)),
        Ok(_) | Err(_) => pieces.extend([within(&entry.project).unwrap_or_default(), entry.details.clone()]),
    }
    let mark = |word: &str, value: &str| if value.is_empty() { String::new() } else { format!("{word} {value}") };
    pieces.extend([mark("token", short(&entry.token)), mark("from", &entry.from)]);
    pieces
}

fn within(project: &str) -> Option<String> {
    (!project.is_empty()).then(|| format!("in {project}"))
}

/// What is known of an act beside its subject; a role names its project itself.
fn told(details: &Map<String, Value>, project: &str) -> Vec<String> {
    let role = details.get("role").and_then(Value::as_str);
    let first = match role {
        Some(role) => Some(format!("as {}", binding(role, details.get("project").and_then(Value::as_str)))),
        None => within(project),
    };
    let rest = details.iter().filter_map(|(name, value)| match name.as_str() {
        // The subject says it by its name, and a role with its project.
        "task_id" | "executor_id" | "role" => None,
        "project" if role.is_some() => None,
        "scope" if value.as_array().is_some_and(Vec::is_empty) => Some("without a scope".to_owned()),
        "scope" | "roles" => bindings(value).map(|bindings| format!("{name} {bindings}")),
        "seconds" => value.as_u64().map(|seconds| format!("for {}", brief(std::time::Duration::from_secs(seconds)))),
        "reason" => words(value).map(|reason| format!("because: {reason}")),
        _ if value == &Value::Bool(true) => Some(name.replace('_', " ")),
        _ => words(value).map(|words| format!("{} {words}", name.replace('_', " "))),
    });
    first.into_iter().chain(rest).collect()
}

/// Roles as they are typed, from objects, or pairs as older entries have them.
fn bindings(value: &Value) -> Option<String> {
    let one =
        |role: Option<&Value>, project: Option<&Value>| Some(binding(role?.as_str()?, project.and_then(Value::as_str)));
    let all = value.as_array()?.iter().map(|told| {
        one(told.get("role"), told.get("project")).or_else(|| one(told.get(0), told.get(1))).or_else(|| words(told))
    });
    Some(all.flatten().collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

fn binding(role: &str, project: Option<&str>) -> String {
    project.map_or_else(|| role.to_owned(), |project| format!("{role}@{project}"))
}

/// A value as people read it; nothing where there is nothing to say.
fn words(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null | Value::Bool(false) => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => beginning(text).to_owned(),
        Value::Array(values) => values.iter().filter_map(words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let pairs = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", words(value)?)));
            pairs.collect::<Vec<_>>().join(" ")
        }
    };
    Some(text).filter(|text| !text.is_empty())
}

/// A digest by its beginning, which tells it from others; anything else whole.
fn beginning(text: &str) -> &str {
    let digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digest { text.get(..16).unwrap_or(text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(action: &str, subject: &str, details: &str) -> AuditEntry {
        AuditEntry {
            sequence: 7,
            actor: "ada".to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            details: details.to_owned(),
            ..AuditEntry::default()
        }
    }

    #[test]
    fn roles_scopes_and_reasons_are_said() {
        for (action, details, said) in [
            ("role.grant", r#"{"role":"operator","project":"website"}"#, "x  as operator@website"),
            ("role.revoke", r#"{"role":"admin","project":null}"#, "x  as admin"),
            ("user.add", r#"{"roles":[["viewer",null],["pair","website"]]}"#, "x  roles viewer, pair@website"),
            (
                "user.add",
                r#"{"roles":[{"role":"viewer","project":null},{"role":"pair","project":"website"}]}"#,
                "x  roles viewer, pair@website",
            ),
            (
                "executor.join",
                r#"{"key":"00851c82eb7091994cce206fa596f9450f1bd6320698acbacca4e1a99d06de2d"}"#,
                "x  key 00851c82eb709199",
            ),
            (
                "token.create",
                r#"{"name":"board","scope":[["viewer","website"]],"seconds":900,"user":"ben"}"#,
                "x  name board  scope viewer@website  for 15m  user ben",
            ),
            ("token.create", r#"{"name":"","scope":[],"seconds":null,"user":"ben"}"#, "x  without a scope  user ben"),
            ("user.lock", r#"{"reason":"left on Friday","seconds":7200}"#, "x  because: left on Friday  for 2h"),
            (
                "join_token.create",
                r#"{"labels":{"arch":"amd64"},"pool":"build","seconds":60,"uses":3}"#,
                "x  labels arch=amd64  pool build  for 1m  uses 3",
            ),
            ("executor.remove", r#"{"executor_id":"0198","given_up":2}"#, "x  given up 2"),
            ("executor.collect", r#"{"all":true}"#, "x  all"),
            ("task.stop", r#"{"task_id":"0198","reason":""}"#, "x"),
            ("pool.remove", "{}", "x"),
            ("something.new", "no JSON", "x  no JSON"),
        ] {
            let text = lines(&entry(action, "x", details), None);
            let (_, told) = text.split_once(action).expect("the action is there");
            assert_eq!(told.trim_start(), said, "{action}");
        }
    }

    #[test]
    fn who_is_said_with_token_and_address() {
        let entry = AuditEntry {
            token: "0198c0de-0000-7000-8000-0000000000c0".to_owned(),
            from: "192.0.2.7".to_owned(),
            project: "website".to_owned(),
            at: None,
            ..entry("task.stop", "task:17", r#"{"reason":"wrong branch"}"#)
        };
        let text = lines(&entry, None);
        let said = "task:17  in website  because: wrong branch  token 0198c0de-0000  from 192.0.2.7";
        assert!(text.starts_with("     7  -  ") && text.ends_with(said), "{text}");
    }

    #[test]
    fn every_terminal_shows_all_of_it() {
        let entry = AuditEntry {
            token: "0198c0de-0000-7000-8000-0000000000c0".to_owned(),
            from: "2001:db8::7".to_owned(),
            ..entry("token.create", "token:0198c0de-0000-7000-8000-0000000000c1", r#"{"user":"a\u001b[2J","name":"b"}"#)
        };
        let whole = lines(&entry, None);
        for width in 80..=120 {
            let text = lines(&entry, Some(width));
            assert!(text.lines().all(|line| columns_of(line) <= width), "at {width}:\n{text}");
            let pieces = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(pieces(&text), pieces(&whole), "at {width}");
        }
        assert!(lines(&entry, Some(80)).lines().count() > 1 && !whole.contains(['\n', '\x1b']), "{whole:?}");
    }
}
