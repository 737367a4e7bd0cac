//! Settings that have no effect, as the executor has joined with others.

use std::collections::BTreeMap;

use crate::app::Identity;

/// What changes a pool or labels of an executor that has joined.
const ANOTHER_TOKEN: &str =
    "a token of `sculpt executor token --pool P --label K=V` and `sculpt-executor join --again`";

/// What `name`, `pool` and `labels` of the settings say in vain, as the executor has `joined` with others.
pub(super) fn overruled(
    joined: &Identity,
    name: Option<&str>,
    pool: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Vec<String> {
    let listed = |labels: &BTreeMap<String, String>| {
        let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if pairs.is_empty() { "none".to_owned() } else { pairs.join(" ") }
    };
    let set = [
        ("name", name.map(str::to_owned), joined.name.clone(), "`sculpt-executor join --again --name`"),
        ("pool", pool.map(str::to_owned), joined.pool.clone(), ANOTHER_TOKEN),
        ("labels", (!labels.is_empty()).then(|| listed(labels)), joined.labels.as_ref().map(listed), ANOTHER_TOKEN),
    ];
    let vain = set.into_iter().filter_map(|(what, set, counts, instead)| match (set, counts) {
        (Some(set), Some(counts)) if set != counts => Some(format!(
            "the settings say {what} {set}, but this executor has joined with {what} {counts}, which counts; {instead} changes it"
        )),
        _ => None,
    });
    vain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_in_vain_is_said() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let joined = Identity {
            executor_id: sculpt_proto::id::ExecutorId::fresh(),
            cluster_id: None,
            controller: None,
            name: Some("till".into()),
            pool: Some("build".into()),
            labels: Some(labels(&[])),
        };
        let (none, arch) = (labels(&[]), labels(&[("arch", "arm64")]));
        assert!(overruled(&joined, None, None, &none).is_empty(), "nothing is set");
        assert!(overruled(&joined, Some("till"), Some("build"), &none).is_empty(), "the same is set");
        assert_eq!(overruled(&joined, None, None, &arch).len(), 1);
        let fresh = Identity { name: None, pool: None, labels: None, ..joined };
        assert!(overruled(&fresh, Some("desk"), Some("release"), &arch).is_empty(), "it has not joined yet");
    }
}
