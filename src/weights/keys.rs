//! Wrapper prefixes of tensor names.

use std::collections::{BTreeMap, BTreeSet};

/// Prefixes that wrappers add to every name of a model: `module.` DataParallel, `_orig_mod.` `torch.compile`, `model.`
/// Lightning and Hugging Face, `backbone.` hub mix-ins.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "backbone."];

/// Prefix of the pretrained part of a fine-tuned PANNs model (`Transfer_Cnn14`), which has a head of its own.
const BASE: &str = "base.";

/// Training counters that are stored with a model: those of batch norm and of stochastic weight averaging.
const COUNTERS: [&str; 2] = ["num_batches_tracked", "n_averaged"];

/// Limit on nested wrappers; more means a damaged file.
const MAX_ROUNDS: usize = 16;

/// Whether a tensor is a training counter, which is not part of a model.
pub(super) fn is_counter(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| COUNTERS.contains(&last))
}

/// Strips wrapper prefixes by the rules in the documentation of the module `weights`.
pub(super) fn strip<T>(mut entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    for _ in 0..MAX_ROUNDS {
        let Some(cut) = prefix(&entries) else { break };
        let unwrapped = |name: String| match name.strip_prefix(cut) {
            Some(rest) => rest.to_owned(),
            None => name,
        };
        entries = entries.into_iter().map(|(name, entry)| (unwrapped(name), entry)).collect();
    }
    entries
}

/// The next prefix to strip, if any.
fn prefix<T>(entries: &BTreeMap<String, T>) -> Option<&'static str> {
    if entries.keys().all(|name| COUNTERS.contains(&name.as_str())) {
        return None;
    }
    let names = || entries.keys().filter(|name| !COUNTERS.contains(&name.as_str()));
    let carried = |cut: &&'static str| names().all(|name| name.len() > cut.len() && name.starts_with(cut));
    let collides = |cut: &str| {
        COUNTERS.iter().any(|name| entries.contains_key(*name) && entries.contains_key(&format!("{cut}{name}")))
    };
    WRAPPERS.into_iter().find(|cut| carried(cut) && !collides(cut)).or_else(|| base_is_free(entries).then_some(BASE))
}

/// Whether some names start with `base.` and stripping it causes no collision.
fn base_is_free<T>(entries: &BTreeMap<String, T>) -> bool {
    let shorter: BTreeSet<&str> = entries.keys().filter_map(|name| name.strip_prefix(BASE)).collect();
    !shorter.is_empty() && !shorter.iter().any(|name| name.is_empty() || entries.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(names: &[&str]) -> Vec<String> {
        strip(names.iter().map(|name| (name.to_string(), ())).collect()).into_keys().collect()
    }

    #[test]
    fn wrapper_prefixes_shared_by_all_names_are_removed() {
        assert_eq!(stripped(&["module.a.weight", "module.b"]), ["a.weight", "b"]);
        assert_eq!(stripped(&["module.a", "b"]), ["b", "module.a"]);
        assert_eq!(stripped(&["module.model._orig_mod.a.model.b"]), ["a.model.b"]);
        assert_eq!(stripped(&["model.", "model.a"]), ["model.", "model.a"]);
        assert_eq!(stripped(&["module.a", "n_averaged"]), ["a", "n_averaged"]);
        assert_eq!(stripped(&["module.n_averaged", "n_averaged"]), ["module.n_averaged", "n_averaged"]);
        assert_eq!(stripped(&["n_averaged"]), ["n_averaged"]);
        assert_eq!(stripped(&[]), [""; 0]);
    }

    #[test]
    fn base_prefix_is_removed_unless_names_collide() {
        assert_eq!(stripped(&["base.fc1.bias", "fc_transfer.bias"]), ["fc1.bias", "fc_transfer.bias"]);
        assert_eq!(stripped(&["base.fc.bias", "fc.bias"]), ["base.fc.bias", "fc.bias"]);
        assert_eq!(stripped(&["module.base.a", "module.b"]), ["a", "b"]);
        // `base.base.a` would become the other name.
        assert_eq!(stripped(&["base.a", "base.base.a"]), ["base.a", "base.base.a"]);
    }
}
