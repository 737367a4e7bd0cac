//! A protocol's surface as plain facts, one line each.
//!
//! A fact names everything that a peer built earlier relies on: a field with its number, type, presence and oneof, a
//! value of an enum, a call with its types and streams. Whatever changes one of these changes or removes its line, and
//! an addition only adds lines; so "compatible" is "no line has gone".

use std::collections::BTreeSet;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// The facts of one package, sorted.
pub(crate) type Surface = BTreeSet<String>;

/// The facts of `package` in `descriptors`.
pub(crate) fn read(descriptors: &FileDescriptorSet, package: &str) -> Surface {
    let mut facts = Surface::new();
    for file in descriptors.file.iter().filter(|file| file.package() == package) {
        read_file(file, &mut facts);
    }
    facts
}

fn read_file(file: &FileDescriptorProto, facts: &mut Surface) {
    facts.insert(format!("package {} syntax {}", file.package(), file.syntax()));
    for message in &file.message_type {
        read_message(message, file.package(), facts);
    }
    for declared in &file.enum_type {
        read_enum(declared, file.package(), facts);
    }
    for service in &file.service {
        read_service(service, file.package(), facts);
    }
}

fn read_message(message: &DescriptorProto, scope: &str, facts: &mut Surface) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("message {name}"));
    for field in &message.field {
        facts.insert(describe_field(field, message, &name));
    }
    for nested in &message.nested_type {
        read_message(nested, &name, facts);
    }
    for nested in &message.enum_type {
        read_enum(nested, &name, facts);
    }
}

fn describe_field(field: &FieldDescriptorProto, message: &DescriptorProto, scope: &str) -> String {
    let mut line = format!("field {scope}.{} = {}: ", field.name(), field.number());
    if field.label() == Label::Repeated {
        line.push_str("repeated ");
    }
    if field.proto3_optional() {
        line.push_str("optional ");
    }
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => line.push_str(field.type_name().trim_start_matches('.')),
        scalar => line.push_str(&scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase()),
    }
    // The compiler wraps each proto3 `optional` in a oneof of its own; only declared ones are a promise.
    if let (Some(index), false) = (field.oneof_index, field.proto3_optional()) {
        line.push_str(&format!(" in oneof {}", message.oneof_decl[index as usize].name()));
    }
    line
}

fn read_enum(declared: &EnumDescriptorProto, scope: &str, facts: &mut Surface) {
    let name = format!("{scope}.{}", declared.name());
    facts.insert(format!("enum {name}"));
    for value in &declared.value {
        facts.insert(format!("value {name}.{} = {}", value.name(), value.number()));
    }
}

fn read_service(service: &ServiceDescriptorProto, scope: &str, facts: &mut Surface) {
    let name = format!("{scope}.{}", service.name());
    facts.insert(format!("service {name}"));
    facts.extend(service.method.iter().map(|method| describe_method(method, &name)));
}

fn describe_method(method: &MethodDescriptorProto, scope: &str) -> String {
    let side =
        |stream: bool, of: &str| format!("{}{}", if stream { "stream " } else { "" }, of.trim_start_matches('.'));
    format!(
        "rpc {scope}.{} ({}) returns ({})",
        method.name(),
        side(method.client_streaming(), method.input_type()),
        side(method.server_streaming(), method.output_type()),
    )
}
