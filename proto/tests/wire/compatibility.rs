//! Refuses what would break a peer that was built earlier, and proves that it would.

use std::{fs, path::PathBuf};

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto, field_descriptor_proto::Type};

use crate::surface::{Surface, read};

const PACKAGES: [&str; 2] = ["sculpt.v1", "sculpt.executor.v1"];

/// Frozen facts that no longer hold, each with what took its place where that can be told.
fn broken(frozen: &Surface, current: &Surface) -> Vec<String> {
    frozen
        .difference(current)
        .map(|gone| {
            let subject = |fact: &str| fact.split([':', '(', '=']).next().map(str::to_owned);
            match current.iter().find(|fact| subject(fact) == subject(gone)) {
                Some(now) => format!("was  {gone}\n  is   {now}"),
                None => format!("gone {gone}"),
            }
        })
        .collect()
}

fn golden(package: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{package}.txt"))
}

fn current() -> FileDescriptorSet {
    FileDescriptorSet::decode(sculpt_proto::DESCRIPTORS).expect("the build's own descriptors decode")
}

fn freeze(package: &str, surface: &Surface) {
    let mut text =
        format!("# What peers of {package} rely on. Written by `make freeze`; see README.md beside this file.\n");
    for fact in surface {
        text.push_str(fact);
        text.push('\n');
    }
    fs::write(golden(package), text).expect("write the golden file");
}

#[test]
fn nothing_frozen_is_gone() {
    for package in PACKAGES {
        let surface = read(&current(), package);
        if std::env::var_os("SCULPT_FREEZE").is_some() {
            freeze(package, &surface);
        }
        let path = golden(package);
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read {}: {error}; `make freeze` writes it", path.display()));
        let frozen: Surface = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        assert!(frozen.len() > 20, "{package}: the golden file is nearly empty and would let everything pass");
        let broken = broken(&frozen, &surface);
        assert!(
            broken.is_empty(),
            "{package}: {} change(s) would break peers that were built earlier. Add a new field, value or call \
             beside the old one instead.\n  {}",
            broken.len(),
            broken.join("\n  ")
        );
    }
}

/// The complaints about `mutate`d descriptors.
fn after(package: &str, mutate: impl FnOnce(&mut FileDescriptorSet)) -> Vec<String> {
    let mut changed = current();
    mutate(&mut changed);
    broken(&read(&current(), package), &read(&changed, package))
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut prost_types::DescriptorProto {
    set.file.iter_mut().flat_map(|file| &mut file.message_type).find(|m| m.name() == name).expect("message")
}

fn method<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut MethodDescriptorProto {
    let mut methods = set.file.iter_mut().flat_map(|file| &mut file.service).flat_map(|service| &mut service.method);
    methods.find(|method| method.name() == name).expect("method")
}

#[test]
fn an_unchanged_protocol_passes() {
    assert_eq!(after("sculpt.v1", |_| ()), Vec::<String>::new());
}

#[test]
fn a_removed_field_is_refused() {
    let found = after("sculpt.v1", |set| message(set, "Task").field.retain(|field| field.name() != "title"));
    assert_eq!(found, ["gone field sculpt.v1.Task.title = 4: string"]);
}

#[test]
fn a_renumbered_field_is_refused() {
    let found = after("sculpt.v1", |set| message(set, "Task").field[3].number = Some(40));
    assert_eq!(found, ["was  field sculpt.v1.Task.title = 4: string\n  is   field sculpt.v1.Task.title = 40: string"]);
}

#[test]
fn a_retyped_field_is_refused() {
    let found = after("sculpt.v1", |set| message(set, "Task").field[3].set_type(Type::Bytes));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("Task.title = 4: bytes"), "{found:?}");
}

#[test]
fn a_renamed_field_is_refused() {
    let found = after("sculpt.v1", |set| message(set, "Task").field[3].name = Some("name".to_owned()));
    assert_eq!(found, ["gone field sculpt.v1.Task.title = 4: string"]);
}

#[test]
fn a_field_that_leaves_its_oneof_is_refused() {
    let found = after("sculpt.v1", |set| message(set, "TaskSpec").field[0].oneof_index = None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("in oneof work"), "{found:?}");
}

#[test]
fn a_removed_or_renumbered_enum_value_is_refused() {
    let states = |set: &mut FileDescriptorSet, change: fn(&mut prost_types::EnumDescriptorProto)| {
        let mut enums = set.file.iter_mut().flat_map(|file| &mut file.enum_type);
        change(enums.find(|declared| declared.name() == "TaskState").expect("enum"));
    };
    let removed = after("sculpt.v1", |set| states(set, |declared| drop(declared.value.pop())));
    assert_eq!(removed, ["gone value sculpt.v1.TaskState.TASK_STATE_CANCELLED = 15"]);
    let renumbered = after("sculpt.v1", |set| states(set, |declared| declared.value[1].number = Some(99)));
    assert_eq!(renumbered.len(), 1, "{renumbered:?}");
}

#[test]
fn a_removed_message_or_call_is_refused() {
    let message = after("sculpt.executor.v1", |set| {
        set.file.iter_mut().for_each(|file| file.message_type.retain(|message| message.name() != "Note"));
    });
    assert!(message.contains(&"gone message sculpt.executor.v1.Note".to_owned()), "{message:?}");
    let call = after("sculpt.executor.v1", |set| {
        let services = set.file.iter_mut().flat_map(|file| &mut file.service);
        services.for_each(|service| service.method.retain(|method| method.name() != "GetSpec"));
    });
    assert_eq!(call.len(), 1, "{call:?}");
    assert!(call[0].starts_with("gone rpc sculpt.executor.v1.ExecutorService.GetSpec"), "{call:?}");
}

#[test]
fn a_call_that_streams_differently_is_refused() {
    let found = after("sculpt.v1", |set| method(set, "ReadLog").server_streaming = Some(false));
    assert_eq!(found.len(), 1, "{found:?}");
    let found = after("sculpt.executor.v1", |set| method(set, "Publish").client_streaming = Some(false));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_call_with_another_type_is_refused() {
    let found = after("sculpt.v1", |set| method(set, "GetTask").output_type = Some(".sculpt.v1.Task".to_owned()));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn additions_pass() {
    let found = after("sculpt.v1", |set| {
        let task = message(set, "Task");
        let mut field = task.field[3].clone();
        field.name = Some("nickname".to_owned());
        field.number = Some(4_000);
        task.field.push(field);
        let mut call = method(set, "GetTask").clone();
        call.name = Some("FindTask".to_owned());
        let tasks = set.file.iter_mut().flat_map(|file| &mut file.service).find(|service| service.name() == "Tasks");
        tasks.expect("service").method.push(call);
        let enums = set.file.iter_mut().flat_map(|file| &mut file.enum_type);
        for declared in enums.filter(|declared| declared.name() == "TaskState") {
            let mut value = declared.value[1].clone();
            value.name = Some("TASK_STATE_DREAMING".to_owned());
            value.number = Some(4_000);
            declared.value.push(value);
        }
    });
    assert_eq!(found, Vec::<String>::new());
}
