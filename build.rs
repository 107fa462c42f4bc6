//! Tells whether the weights of the default checkpoint are there: a package of the registry has no room for
//! them.

use std::path::Path;

fn main() {
    let weights = "checkpoints/default/model.safetensors";
    println!("cargo::rustc-check-cfg=cfg(default_weights)");
    println!("cargo::rerun-if-changed={weights}");
    if Path::new(weights).is_file() {
        println!("cargo::rustc-cfg=default_weights");
    }
}
