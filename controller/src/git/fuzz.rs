//! Fuzz target: names of refs, and what is made of people's titles.

use sculpt_core::naming;

use super::names;

/// A name that passes is one that git takes and that means the same everywhere; a title always makes one.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if names::is_plain(&text) {
        assert!(git2::Reference::is_valid_name(&text), "git takes no ref {text:?}");
        let lower = text.to_ascii_lowercase();
        let harm =
            ["..", "/.", "./", "/-", "//", "@", ".lock", "\\", "$", "~"].iter().find(|part| lower.contains(**part));
        let lock_inside = harm == Some(&".lock") && !lower.split('/').any(|part| part.ends_with(".lock"));
        assert!(harm.is_none() || lock_inside, "{text:?} holds {harm:?}");
    }
    let title = naming::title(&text);
    assert!(title.chars().count() <= naming::MAX_TITLE && !title.chars().any(char::is_control), "title {title:?}");
    assert_eq!(naming::title(&title), title, "a title is its own title");
    let branch = names::branch(&naming::branch(17, &text));
    assert!(names::is_plain(&branch), "{text:?} makes the ref {branch:?}");
    if let Ok(commit) = sculpt_proto::commit_id(&text, "text") {
        assert!(names::is_plain(&names::base(&commit)), "{commit} makes no ref");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("names", super::names);
    }
}
