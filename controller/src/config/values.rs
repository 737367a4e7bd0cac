//! Values of settings, as people write them.

use std::time::Duration;

use sculpt_space::ByteSize;
use url::Url;

use super::{ConfigError, LOG_RETENTION};
use crate::pki::LEAF_LIFE;

/// The least life of a certificate: there must be time to renew it.
const SHORTEST_LIFE: Duration = Duration::from_secs(3);

pub(super) fn retention(text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    let hint = "write it like \"90days\", at least an hour, or \"off\" to keep logs for ever";
    match text {
        None => Ok(Some(LOG_RETENTION)),
        Some("off") => Ok(None),
        Some(text) => match humantime::parse_duration(text) {
            Ok(span) if span >= Duration::from_secs(3600) => Ok(Some(span)),
            Ok(_) | Err(_) => Err(ConfigError::Text { setting: "log_retention", text: text.to_owned(), hint }),
        },
    }
}

pub(super) fn executor_url(text: String) -> Result<String, ConfigError> {
    let plain = |url: &Url| {
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        url.scheme() == "https" && url.has_host() && bare && url.username().is_empty() && url.password().is_none()
    };
    match Url::parse(&text).ok().filter(plain) {
        Some(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        None => {
            let hint = "write it like \"https://sculpt.example:7434\", with nothing behind the port";
            Err(ConfigError::Text { setting: "executor_url", text, hint })
        }
    }
}

pub(super) fn life(text: Option<&str>) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(LEAF_LIFE) };
    match humantime::parse_duration(text) {
        Ok(life) if (SHORTEST_LIFE..=LEAF_LIFE).contains(&life) => Ok(life),
        Ok(_) | Err(_) => {
            let hint = "write it like \"8h\", from three seconds to a day";
            Err(ConfigError::Text { setting: "certificate_life", text: text.to_owned(), hint })
        }
    }
}

pub(super) fn size(text: &str) -> Result<u64, ConfigError> {
    match text.parse() {
        Ok(ByteSize(bytes)) if bytes > 0 => Ok(bytes),
        Ok(_) | Err(_) => {
            let hint = "write it like \"200GiB\", or leave it out for no limit";
            Err(ConfigError::Text { setting: "disk_budget", text: text.to_owned(), hint })
        }
    }
}

pub(super) fn positive<T: Default + PartialEq>(setting: &'static str, value: T) -> Result<T, ConfigError> {
    if value == T::default() { Err(ConfigError::Zero { setting }) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_lives_for_a_day_at_most() {
        assert_eq!(life(None).expect("a life"), LEAF_LIFE);
        assert_eq!(life(Some("90s")).expect("a life"), Duration::from_secs(90));
        for wrong in ["2s", "25h", "soon", ""] {
            assert!(life(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn executors_dial_a_host_and_a_port() {
        let read = |text: &str| executor_url(text.to_owned());
        assert_eq!(read("https://sculpt.example:7434/").expect("a URL"), "https://sculpt.example:7434");
        for wrong in
            ["sculpt.example:7434", "http://a:1", "https://a/x", "https://u@a", "https://a?x", "https://a#x", ""]
        {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("executor_url") && error.contains("https://sculpt.example:7434"), "{error}");
        }
    }
}
