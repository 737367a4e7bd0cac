//! The wire: what people and tools speak (`v1`), what executors speak (`executor`), typed ids, and checked conversions.

mod check;
pub mod id;

pub use check::{FieldError, commit_id, duration, labels, required, timestamp, to_duration};

/// `sculpt.v1`, for people and tools.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated; the .proto files carry the documentation")]
pub mod v1 {
    tonic::include_proto!("sculpt.v1");
}

/// Executors' side.
pub mod executor {
    /// `sculpt.executor.v1`, for executors.
    #[expect(missing_docs, clippy::allow_attributes, reason = "generated; the .proto files carry the documentation")]
    #[expect(clippy::large_enum_variant, reason = "the largest message, Hello, is sent once a session")]
    pub mod v1 {
        tonic::include_proto!("sculpt.executor.v1");
    }
}

/// The encoded `FileDescriptorSet` of everything above, for reflection and for the check against breaking changes.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Version of the executor protocol that this build speaks.
pub const EXECUTOR_PROTOCOL: u32 = 1;

/// Largest prompt in bytes.
pub const MAX_PROMPT: usize = 1 << 20;

/// Largest payload of one `Append`, in bytes.
pub const MAX_APPEND: usize = 256 << 10;

/// Largest piece of a pack in one message, in bytes.
pub const MAX_PACK_PIECE: usize = 1 << 20;

/// Largest message that any server here takes or sends, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
