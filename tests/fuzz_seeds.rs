//! The fuzz targets of `fuzz/` on their seeds: small valid inputs, and every input that once failed.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Runs a target on each of its seeds. A panic or an aborted process names the seed.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    for seed in seeds {
        println!("{}", seed.display());
        run(&std::fs::read(&seed).unwrap());
    }
}

#[test]
fn audio() {
    replay("audio", targets::audio);
}

#[test]
fn ogg() {
    replay("ogg", targets::ogg);
}

#[test]
fn weights() {
    replay("weights", targets::weights);
}

#[test]
fn folder() {
    replay("folder", targets::folder);
}

#[test]
fn text() {
    replay("text", targets::text);
}

#[test]
fn structured() {
    replay("structured", targets::structured);
}
