//! Where the published encoder is that the phoneme recogniser stands on.

use std::env;
use std::path::{Path, PathBuf};

/// The repository on the Hugging Face hub.
pub const REPOSITORY: &str = "openai/whisper-tiny.en";
/// Names a file or folder that has it.
pub const VARIABLE: &str = "CLIPWISE_WHISPER_TINY_EN";

/// What [`VARIABLE`] names, else the checkpoint in the cache of Hugging Face's tools.
pub fn find() -> Option<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = folder(VARIABLE) {
        return Some(named);
    }
    let home = || folder("HF_HOME").or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
    in_cache(&folder("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")))?)
}

/// The checkpoint of the main branch.
fn in_cache(cache: &Path) -> Option<PathBuf> {
    let repository = cache.join(format!("models--{}", REPOSITORY.replace('/', "--")));
    let commit = std::fs::read_to_string(repository.join("refs/main")).ok()?;
    let file = repository.join("snapshots").join(commit.trim()).join("model.safetensors");
    file.exists().then_some(file)
}
