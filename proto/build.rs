//! Compiles the wire contract without a `protoc` on the machine.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(
        ["pyrightd/v1/export.proto", "pyrightd/v1/project.proto", "pyrightd/v1/snapshot.proto"],
        ["proto"],
    )?;
    #[expect(clippy::disallowed_methods, reason = "how Cargo tells a build script where to write")]
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // What server reflection answers from.
    std::fs::write(out.join("pyrightd.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(descriptors)?;
    Ok(())
}
