//! Where the published encoder of the phoneme recogniser is found.

use std::env;
use std::path::{Path, PathBuf};

/// The repository on the Hugging Face hub.
pub const REPOSITORY: &str = "openai/whisper-tiny.en";
/// Names a file or folder that has it.
pub const VARIABLE: &str = "CLIPWISE_WHISPER_TINY_EN";

/// What [`VARIABLE`] names, else the checkpoint in the [`cache`].
pub fn find() -> Option<PathBuf> {
    folder(VARIABLE).or_else(|| in_cache(&cache()?))
}

/// The cache of Hugging Face's tools.
pub fn cache() -> Option<PathBuf> {
    let home = || folder("HF_HOME").or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
    folder("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")))
}

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The checkpoint of the main branch.
fn in_cache(cache: &Path) -> Option<PathBuf> {
    let repository = cache.join(format!("models--{}", REPOSITORY.replace('/', "--")));
    let commit = std::fs::read_to_string(repository.join("refs/main")).ok()?;
    let file = repository.join("snapshots").join(commit.trim()).join("model.safetensors");
    file.exists().then_some(file)
}
