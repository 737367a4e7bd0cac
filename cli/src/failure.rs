//! What a command says when it cannot do what was asked: what was attempted, why it failed, what to do next.

use std::io;

use sculpt_tls::Matter;
use tonic::{Code, Status};

use crate::exit::Exit;

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Empty: the command ends without a word.
    text: String,
    next: Vec<String>,
}

impl Failure {
    /// `attempted` completes "cannot …"; `why` is a clause or a sentence.
    pub(crate) fn new(exit: Exit, attempted: impl AsRef<str>, why: impl AsRef<str>) -> Self {
        let why = why.as_ref().trim_end().trim_end_matches('.');
        Self { exit, text: format!("cannot {}: {why}", attempted.as_ref()), next: Vec::new() }
    }

    /// Nothing more to say: standard output was closed, or everything was said.
    pub(crate) fn quiet(exit: Exit) -> Self {
        Self { exit, text: String::new(), next: Vec::new() }
    }

    /// One more line on what to do now.
    pub(crate) fn next(mut self, advice: impl Into<String>) -> Self {
        self.next.push(advice.into());
        self
    }

    /// Several of them.
    pub(crate) fn advised(mut self, advice: Vec<String>) -> Self {
        self.next.extend(advice);
        self
    }

    /// Whether the reason itself says this already.
    pub(crate) fn mentions(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    /// Output that cannot be written; a closed pipe is the reader's wish, not an error.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::quiet(Exit::Done),
            _ => Self::new(Exit::Failed, "write to standard output", error.to_string()),
        }
    }

    /// The controller's refusal.
    pub(crate) fn status(attempted: impl AsRef<str>, status: &Status) -> Self {
        let exit = if is_transient(status) { Exit::OutOfReach } else { Exit::of_status(status.code()) };
        let why = match status.message() {
            "" => status.code().description().to_owned(),
            message => as_typed(message),
        };
        let failure = Self::new(exit, attempted, why);
        match exit {
            Exit::OutOfReach => failure.next("`sculpt doctor` says which part is away; the agents go on meanwhile"),
            Exit::NotAllowed if status.code() == Code::PermissionDenied => {
                failure.next("`sculpt whoami` shows who you are to the controller, and your roles")
            }
            Exit::NotAllowed => {
                failure.next("`sculpt doctor` says which token is used and whether it is the right one")
            }
            _ if status.code() == Code::Internal => failure.next("the controller's log has the details"),
            _ => failure,
        }
    }

    /// The lines for standard error.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.text.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!("sculpt: {}", self.text)];
        lines.extend(self.next.iter().map(|advice| format!("  {advice}")));
        lines
    }
}

/// A field that the controller names, as the flag that fills it.
fn as_typed(message: &str) -> String {
    let flags = [("spec.requirements", "--require"), ("spec.labels", "--label")];
    for (field, flag) in flags {
        if let Some(rest) = message.strip_prefix(field) {
            return format!("{flag}{rest}");
        }
    }
    message.strip_prefix("spec.").map_or_else(|| message.to_owned(), |rest| format!("--{rest}"))
}

/// Whether that may be over in a moment. Where the controller gives a reason, it has looked, and would find the same again.
pub(crate) fn is_passing(status: &Status) -> bool {
    is_transient(status) && !status.metadata().contains_key("sculpt-reason")
}

/// Whether the same call may succeed when it is made again: the connection broke, or the controller is on its way
/// down or up. Statuses that come from the transport carry a source; those of the controller never do, and it never
/// answers UNKNOWN. Somebody else who answers in its place does not become the controller.
pub(crate) fn is_transient(status: &Status) -> bool {
    if sculpt_tls::explain(status).is_some_and(|problem| problem.matter == Matter::Authority) {
        return false;
    }
    let from_transport = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable | Code::Unknown => true,
        Code::Internal | Code::Cancelled => from_transport,
        _ => false,
    }
}
