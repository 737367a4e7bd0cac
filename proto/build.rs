//! Compiles the protocol without `protoc`.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 13] = [
    "sculpt/v1/tasks.proto",
    "sculpt/v1/logs.proto",
    "sculpt/v1/projects.proto",
    "sculpt/v1/git.proto",
    "sculpt/v1/executors.proto",
    "sculpt/v1/events.proto",
    "sculpt/v1/system.proto",
    "sculpt/v1/identity.proto",
    "sculpt/v1/audit.proto",
    "sculpt/v1/pairing.proto",
    "sculpt/executor/v1/executor.proto",
    "sculpt/executor/v1/enrolment.proto",
    "sculpt/executor/v1/pairing.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // The same content is the same bytes: who sends a request again is known by their digest.
        .btree_map(".")
        .bytes(".sculpt.v1.LogChunk.data")
        .bytes(".sculpt.v1.SendPackRequest.data")
        .bytes(".sculpt.v1.DiffResponse.patch")
        .bytes(".sculpt.executor.v1.Append.data")
        .bytes(".sculpt.executor.v1.PublishRequest.data")
        .bytes(".sculpt.v1.TunnelRequest.data")
        .bytes(".sculpt.v1.TunnelResponse.data")
        .bytes(".sculpt.executor.v1.TunnelRequest.data")
        .bytes(".sculpt.executor.v1.TunnelResponse.data")
        .compile_fds(descriptors)?;
    Ok(())
}
