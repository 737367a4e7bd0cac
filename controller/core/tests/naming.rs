//! Names from what people typed: safe as a branch, legible as a title, and quick.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sculpt_core::naming::{MAX_SLUG, MAX_TITLE, branch, slug, title};

#[test]
fn slugs() {
    let rows = [
        ("Fix the login page", "fix-the-login-page"),
        ("  --Fix: the   login!! ", "fix-the-login"),
        ("", "task"),
        ("   \t\n", "task"),
        ("---", "task"),
        ("日本語", "task"),
        ("🚀🚀", "task"),
        ("Füße waschen", "f-e-waschen"),
        ("../../etc/passwd", "etc-passwd"),
        ("main.lock", "main-lock"),
        ("HEAD@{1}", "head-1"),
        ("a..b~c^d:e?f*g[h\\i", "a-b-c-d-e-f-g-h-i"),
        ("-rf", "rf"),
        ("$(touch x) `id` #(id)", "touch-x-id-id"),
        ("x\u{0}y\u{7f}z\u{202e}w", "x-y-z-w"),
        ("ﬁx ＡＢＣ", "x"),
    ];
    for (text, expected) in rows {
        assert_eq!(slug(text), expected, "{text:?}");
    }
    assert_eq!(slug(&"a".repeat(100)), "a".repeat(MAX_SLUG));
    // The cut leaves no dash at the end.
    assert_eq!(slug(&format!("{} b", "a".repeat(MAX_SLUG - 1))), "a".repeat(MAX_SLUG - 1));
}

#[test]
fn branches() {
    assert_eq!(branch(17, "Fix login"), "sculpt/17-fix-login");
    assert_eq!(branch(u64::MAX, "🚀"), "sculpt/18446744073709551615-task");
}

#[test]
fn titles() {
    let rows = [
        ("Fix the login page", "Fix the login page"),
        ("\n\n   Fix it  \nand more", "Fix it"),
        ("\r\nFix it\r\nand more", "Fix it"),
        ("", ""),
        (" \n\t\n ", ""),
        // A line of controls says nothing; the next one counts.
        ("\u{1b}\u{7}\nFix it", "Fix it"),
        ("tab\there", "tab here"),
        ("\u{1b}[31mred", "[31mred"),
        ("one\u{2028}two", "one two"),
        ("evil\u{202e}txt.exe", "eviltxt.exe"),
        ("\u{feff}# Plan", "# Plan"),
        ("Füße 日本 👩‍🚀", "Füße 日本 👩‍🚀"),
    ];
    for (text, expected) in rows {
        assert_eq!(title(text), expected, "{text:?}");
    }
    let exact = "ü".repeat(MAX_TITLE);
    assert_eq!(title(&exact), exact);
    assert_eq!(title(&format!("{exact}ü")), format!("{}…", "ü".repeat(MAX_TITLE - 1)));
    assert_eq!(title(&format!("{} {}", "a".repeat(MAX_TITLE - 2), "bbb")), format!("{}…", "a".repeat(MAX_TITLE - 2)));
}

#[test]
fn a_mebibyte_of_anything_is_quick() {
    let begun = Instant::now();
    for unit in ["a", "-", " ", "\n", "🚀", "\u{0}", "a\n", " -\n"] {
        let text = unit.repeat((1 << 20) / unit.len());
        assert!(slug(&text).len() <= MAX_SLUG);
        assert!(title(&text).chars().count() <= MAX_TITLE);
    }
    // Linear work takes a fraction of this, also unoptimised on a busy machine; quadratic work takes hours.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// The rules of `git check-ref-format`, and none that a shell or an option parser could read otherwise.
fn is_safe_ref(name: &str) -> bool {
    let parts_are_safe = name.split('/').all(|part| {
        !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(['.', '-']) && !part.ends_with(".lock")
    });
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '/';
    parts_are_safe && name.chars().all(allowed) && !name.contains("..") && !name.contains("@{") && !name.contains("--")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_branch_is_a_safe_ref(number in any::<u64>(), text in any::<String>()) {
        let name = branch(number, &text);
        prop_assert!(is_safe_ref(&name), "{:?}", name);
        prop_assert!("refs/heads/".len() + name.len() <= 255);
        let slug = slug(&text);
        prop_assert!(!slug.is_empty() && slug.len() <= MAX_SLUG);
        prop_assert_eq!(sculpt_core::naming::slug(&slug), slug);
    }

    #[test]
    fn every_title_is_one_short_line(text in any::<String>()) {
        let title = title(&text);
        prop_assert!(title.chars().count() <= MAX_TITLE);
        prop_assert!(!title.chars().any(char::is_control));
        prop_assert_eq!(title.trim(), title.as_str());
        prop_assert_eq!(sculpt_core::naming::title(&title), title);
    }
}
