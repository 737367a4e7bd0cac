//! PURE: how a person sits beside an agent, in words.

/// Why somebody comes, what they are while they are there, and what they were or did.
pub(crate) struct Seat {
    pub(crate) comes: String,
    pub(crate) is: String,
    pub(crate) was: String,
}

/// By the name of the role; one that is not known yet speaks for itself.
pub(crate) fn seat(role: &str) -> Seat {
    let [comes, is, was] = match role {
        "command" => ["came to run a command", "runs a command", "ran a command"],
        "files" => ["came to copy files", "copies files", "copied files"],
        "ports" => ["came to reach ports", "reaches ports", "reached ports"],
        role => {
            return Seat { comes: format!("sat down as {role}"), is: role.to_owned(), was: format!("was {role}") };
        }
    };
    Seat { comes: comes.to_owned(), is: is.to_owned(), was: was.to_owned() }
}
