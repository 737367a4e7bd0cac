//! PURE: our lines in a person's configuration of ssh. Nothing else in it is touched.

use crate::pairing::{Folders, Unspeakable, Us, quoted, workspaces};

const BEGIN: &str =
    "# >>> sculpt: `sculpt config-ssh` writes these lines anew, `sculpt config-ssh --remove` takes them out";
const END: &str = "# <<< sculpt";

/// What a line of ours begins with, in whatever version.
const BEGINS: &[u8] = b"# >>> sculpt";
const ENDS: &[u8] = b"# <<< sculpt";

/// Our lines begin and do not end, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// Number of the line.
    pub(super) line: usize,
}

/// Our lines: they fetch a certificate when ssh looks for the host, and only then lead there. Why not, was said when it was fetched;
/// ssh adds nothing to it. A name with a quote in it is
/// none of ours, and would be read by a shell.
pub(super) fn ours(us: &Us, folders: &Folders) -> Result<String, Unspeakable> {
    // In this place one ssh reads a backslash before a quote as it stands, and another one takes it away.
    let spoken = |text: &str| !text.chars().any(|c| "\"'\\".contains(c) || c.is_control());
    let values = us.variables.iter().map(|(_, value)| value.clone());
    if let Some(value) = values.chain([us.program.to_string_lossy().into_owned()]).find(|value| !spoken(value)) {
        return Err(Unspeakable(value));
    }
    let fetch = us.line(&["config-ssh", "--for"]);
    let files = quoted(&workspaces(folders))?;
    Ok(format!(
        "{BEGIN}\n\
         Match originalhost \"sculpt.*,!*'*\" exec \"{fetch} '%n'\"\n  \
           Include {files}\n\
         Host sculpt.*\n  \
           ProxyCommand false\n  \
           LogLevel QUIET\n\
         Match all\n\
         {END}\n"
    ))
}

/// The configuration with `ours` at its top, where nothing comes before it, or without.
pub(super) fn put(text: &[u8], ours: Option<&str>) -> Result<Vec<u8>, Torn> {
    let mut rest = Vec::with_capacity(text.len());
    let mut begun = None;
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        match (begun, line.starts_with(BEGINS), line.starts_with(ENDS)) {
            (None, true, _) => begun = Some(number),
            (Some(_), _, true) => begun = None,
            (Some(_), true, _) | (None, _, true) => return Err(Torn { line: number }),
            (Some(_), false, false) => {}
            (None, false, false) => rest.extend_from_slice(line),
        }
    }
    match begun {
        Some(line) => Err(Torn { line }),
        None => Ok([ours.unwrap_or_default().as_bytes(), &rest].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "# >>> sculpt: new\nMatch all\n# <<< sculpt\n";

    #[test]
    fn what_is_a_persons_own_stays() {
        let elder = "# >>> sculpt of old\nHost x\n# <<< sculpt\n";
        for (before, with) in [
            ("", OURS.to_owned()),
            ("Host a\n  User b", format!("{OURS}Host a\n  User b")),
            ("\r\nHost a\r\n", format!("{OURS}\r\nHost a\r\n")),
            (elder, OURS.to_owned()),
            (&format!("Host a\n{elder}\nHost *\n"), format!("{OURS}Host a\n\nHost *\n")),
            (&format!("{elder}x\n{elder}"), format!("{OURS}x\n")),
        ] {
            let put = |text: &[u8], ours| put(text, ours).unwrap();
            let made = put(before.as_bytes(), Some(OURS));
            assert_eq!(String::from_utf8_lossy(&made), with);
            assert_eq!(put(&made, Some(OURS)), made, "once more changes nothing");
            assert_eq!(put(&made, None), put(before.as_bytes(), None));
        }
        assert_eq!(put(b"Host \xff\n", None).unwrap(), b"Host \xff\n");
    }

    #[test]
    fn lines_that_were_torn_are_left_to_the_person() {
        for (text, line) in [
            ("a\n# >>> sculpt\nb\n", 2),
            ("a\nb\n# <<< sculpt\n", 3),
            ("# >>> sculpt\n# >>> sculpt\n# <<< sculpt\n", 2),
        ] {
            assert_eq!(put(text.as_bytes(), None), Err(Torn { line }), "{text}");
        }
    }

    #[test]
    fn what_a_shell_might_read_otherwise_is_refused() {
        let folders = tempfile::tempdir().unwrap();
        let folders = Folders::at(folders.path());
        let us = |program: &str, context: &str| Us {
            program: program.into(),
            variables: vec![("SCULPT_CONTEXT", context.to_owned())],
        };
        for (program, context, unspoken) in [
            ("/opt/a tool/sculpt", "my $own", None),
            ("/home/o'neil/sculpt", "local", Some("/home/o'neil/sculpt")),
            ("/bin/sculpt", "a'; touch x; '", Some("a'; touch x; '")),
            ("/bin/sculpt", "a\\", Some("a\\")),
            ("/bin/\"/sculpt", "local", Some("/bin/\"/sculpt")),
        ] {
            let refused = ours(&us(program, context), &folders).err();
            assert_eq!(refused.map(|Unspeakable(text)| text).as_deref(), unspoken, "{program} {context}");
        }
    }
}
