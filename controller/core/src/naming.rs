//! Names that are derived from what people typed.

/// Longest slug in bytes.
pub const MAX_SLUG: usize = 40;

/// Longest derived title in characters.
pub const MAX_TITLE: usize = 72;

/// A branch-safe word for `title`: lower-case ASCII letters, digits and single dashes; `task` when nothing is left.
pub fn slug(title: &str) -> String {
    let mut slug = String::new();
    for c in title.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == MAX_SLUG {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "task".to_owned() } else { slug.to_owned() }
}

/// The branch that a task's commits are published to, without `refs/heads/`.
pub fn branch(number: u64, title: &str) -> String {
    format!("sculpt/{number}-{}", slug(title))
}

/// A title for a prompt or command line: its first line that says something, cut at a character border. Nothing in it moves
/// a terminal's cursor or turns the direction of what follows. Empty when the whole text says nothing.
pub fn title(text: &str) -> String {
    let clean = text.lines().map(legible).find(|line| !line.is_empty()).unwrap_or_default();
    if clean.chars().count() <= MAX_TITLE {
        return clean;
    }
    let mut cut: String = clean.chars().take(MAX_TITLE - 1).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

fn legible(line: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_control() || c.is_whitespace() => Some(' '),
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => None,
        c => Some(c),
    };
    line.chars().filter_map(plain).collect::<String>().trim().to_owned()
}
