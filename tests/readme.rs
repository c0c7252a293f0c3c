//! The commands of the README run in a clone, and its links lead somewhere.

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of the shell blocks of a page.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).collect()
}

#[test]
fn its_commands_run() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let clone = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let _ = fs::remove_dir_all(&clone);
    // Commands write beside their input: a copy of what they read.
    for folder in
        ["examples/audio", "examples/audio/sounds/bell", "examples/audio/sounds/rain", "examples/audio/sounds/speech"]
    {
        fs::create_dir_all(clone.join(folder)).unwrap();
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, clone.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let mut n_run = 0;
    for line in commands(&readme) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["clipwise", args @ ..] => {
                let output =
                    Command::new(env!("CARGO_BIN_EXE_clipwise")).args(args).current_dir(&clone).output().unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success()
                        && !output.stdout.is_empty() | args.contains(&"--out") | args.contains(&"--out-dir"),
                    "{line}: {stderr}"
                );
                n_run += 1;
            }
            ["cargo", "run" | "test" | "install", ..] => {} // run where the project is built
            _ => panic!("expected a command that can be tested, got {line:?}"),
        }
    }
    assert!(n_run >= 8, "{n_run} commands");
    for written in ["telephone.png", "embeddings.parquet", "labels/telephone.txt", "my-sounds/model.safetensors"] {
        assert!(clone.join(written).is_file(), "{written}");
    }
}

#[test]
fn its_links_lead_somewhere() {
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/tables.md",
        "docs/models.md",
        "docs/checkpoints.md",
        "docs/performance.md",
    ] {
        let path = root().join(page);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            let is_local = !file.is_empty() && !link.contains("://");
            assert!(!is_local || path.parent().unwrap().join(file).exists(), "{page}: {link}");
        }
    }
}
