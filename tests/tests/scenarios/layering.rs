//! The source tree keeps its rules, and the check would notice if it did not.

use std::fs;

use anyhow::Result;
use sculpt_tests::layering::{metadata, workspace, wrong_dependencies, wrong_names};
use serde_json::json;

#[test]
fn the_workspace_keeps_its_layers() -> Result<()> {
    let root = workspace();
    let mut wrong = wrong_dependencies(&metadata(&root)?);
    wrong.extend(wrong_names(&root)?);
    assert!(wrong.is_empty(), "{} break(s) of the layering:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn a_forbidden_dependency_is_found() {
    let package = |name: &str, on: &[&str]| {
        let dependencies: Vec<_> = on.iter().map(|name| json!({ "name": name })).collect();
        json!({ "name": name, "dependencies": dependencies })
    };
    let metadata = json!({ "packages": [
        package("sculpt", &["sculpt-proto", "sculpt-controller"]),
        package("sculpt-core", &["chrono", "tokio"]),
        package("sculpt-extra", &[]),
    ] });
    let wrong = wrong_dependencies(&metadata);
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
    assert!(wrong[0].contains("sculpt must not depend on sculpt-controller"), "{wrong:#?}");
    assert!(wrong[1].contains("must not depend on tokio"), "{wrong:#?}");
    assert!(wrong[2].contains("sculpt-extra has no place"), "{wrong:#?}");
}

#[test]
fn a_forbidden_name_is_found() -> Result<()> {
    let tree = tempfile::tempdir()?;
    let write = |path: &str, text: &str| -> Result<()> {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent"))?;
        Ok(fs::write(path, text)?)
    };
    write(
        "controller/src/dispatch.rs",
        "// sqlx in a comment\nlet pool: sqlx::PgPool;\nlet my_sqlx_like = \"sqlx=warn\";\n",
    )?;
    write("controller/src/store/tasks.rs", "use sqlx::PgPool;\n")?;
    write("controller/src/git/mod.rs", "use git2::Repository;\n")?;
    write("controller/src/gitless.rs", "use git2::Oid;\n")?;
    write("controller/src/store/rows.rs", "use sculpt_proto::v1::Task;\n")?;
    write("controller/src/store/logs.rs", "use sculpt_proto::{\n    id::TaskId,\n    v1::LogChunk,\n};\n")?;
    write("controller/src/store/ids.rs", "use sculpt_proto::{FieldError, id::TaskId};\nfn v1() {}\n")?;
    write("controller/src/grpc/tasks.rs", "use sculpt_proto::v1::Task;\n")?;
    write("controller/core/src/task.rs", "let now = chrono::Utc::now();\n")?;
    write("executor-agent/src/harvest.rs", "use git2::Oid;\n")?;
    write("cli/src/git.rs", "use git2::Repository;\n")?;
    write("cli/src/commands/run.rs", "use git2::Oid;\n")?;
    let wrong = wrong_names(tree.path())?;
    for place in [
        "controller/src/dispatch.rs:2:",
        "controller/src/gitless.rs:1:",
        "controller/src/store/rows.rs:1:",
        "controller/src/store/logs.rs:1:",
        "controller/core/src/task.rs:1:",
        "executor-agent/src/harvest.rs:1:",
        "cli/src/commands/run.rs:1:",
    ] {
        assert!(wrong.iter().any(|found| found.starts_with(place)), "{place} is not among {wrong:#?}");
    }
    assert_eq!(wrong.len(), 7, "{wrong:#?}");
    Ok(())
}
