//! A file per recording.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::input::Item;
use crate::message::name;

/// Whether both names stand for one file that exists.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The files whose results can be written to their places, found before any work is done. Errors are files whose result would overwrite
/// that of another file of this run, or themselves. With `skip_existing`, those that have a result of an earlier run are left out.
pub fn claimed(
    files: impl Iterator<Item = Item> + Send,
    place: impl Fn(&Path) -> PathBuf + Send,
    skip_existing: bool,
) -> impl Iterator<Item = Item> + Send {
    let mut owners: HashMap<PathBuf, PathBuf> = HashMap::new();
    files.filter_map(move |file| {
        let Ok(file) = file else { return Some(file) };
        let path = place(&file);
        if let Some(owner) = owners.get(&path) {
            let [file, owner, path] = [&file, owner, &path].map(|path| name(path));
            return Some(Err(format!("{file}: its result would overwrite that of {owner}, {path}")));
        }
        owners.insert(path.clone(), file.clone());
        // Whatever exists here is of an earlier run: this one writes only what was claimed.
        if is_same_file(&path, &file) {
            return Some(Err(format!("{}: its result would overwrite it", name(&file))));
        }
        (!(skip_existing && path.exists())).then_some(Ok(file))
    })
}
