//! Finding the state dict among what else a checkpoint holds.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
};

use super::{
    pickle::{Machine, Node, Value},
    torch_names::StoredTensor,
};

/// Keys under which training scripts put the state dict.
const USUAL_KEYS: [&[u8]; 8] =
    [b"state_dict", b"model_state_dict", b"model_state", b"model", b"net", b"network", b"params", b"weights"];
/// How many keys may lead from the checkpoint to its state dict.
const MAX_DEPTH: usize = 4;
/// Most tensors of a state dict; published ones have a few thousand.
const MAX_TENSORS: usize = 1 << 17;

/// A dictionary with tensors in it.
struct Candidate<'a> {
    map: Value<'a>,
    key: &'a [u8],
    depth: usize,
    n_tensors: usize,
}

/// The tensors of the state dict that `root` is or contains, by the rule that [`super::Weights`]' module documents.
pub(super) fn find<'a, 'm>(
    machine: &'m Machine<'a>,
    root: Value<'a>,
) -> Result<BTreeMap<String, &'m StoredTensor<'a>>, String> {
    let usual = |key: &[u8]| USUAL_KEYS.iter().position(|usual| *usual == key);
    let found = candidates(machine, root).into_iter().min_by_key(|candidate| {
        let Candidate { key, depth, n_tensors, .. } = *candidate;
        // The first found of equals.
        (usual(key).map_or((usize::MAX, 0), |rank| (depth, rank)), Reverse(n_tensors))
    });
    let found = found.ok_or("there is no state dict: no dictionary of named tensors; a whole pickled model is not read, save its state_dict()")?;
    if found.n_tensors > MAX_TENSORS {
        return Err(format!("{} tensors, more than {MAX_TENSORS}", found.n_tensors));
    }
    let items = machine.items(found.map).unwrap_or_default();
    Ok(items.iter().filter_map(|&item| named_tensor(machine, item)).collect())
}

/// All dictionaries that hold tensors, the outer before the inner.
fn candidates<'a>(machine: &Machine<'a>, root: Value<'a>) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([(root, &b""[..], 0)]);
    while let Some((map, key, depth)) = queue.pop_front() {
        let (Value::Node(index), Some(Node::Map { items, state })) = (map, machine.node(map)) else { continue };
        if !seen.insert(index) {
            continue;
        }
        let n_tensors = items.iter().filter(|item| named_tensor(machine, **item).is_some()).count();
        if n_tensors > 0 {
            found.push(Candidate { map, key, depth, n_tensors });
        }
        if depth < MAX_DEPTH {
            let inner = items.iter().filter_map(|&(key, value)| match key {
                Value::Text(key) if !is_training_state(key) => Some((value, key, depth + 1)),
                _ => None,
            });
            queue.extend(inner.chain([(*state, key, depth + 1)]));
        }
    }
    found
}

/// Whether a key names the state of an optimiser or a schedule, whose tensors are shaped as the model's.
fn is_training_state(key: &[u8]) -> bool {
    let key = key.to_ascii_lowercase();
    [&b"optim"[..], b"sched"].iter().any(|part| key.windows(part.len()).any(|window| window == *part))
}

fn named_tensor<'a, 'm>(
    machine: &'m Machine<'a>,
    (key, value): (Value<'a>, Value<'a>),
) -> Option<(String, &'m StoredTensor<'a>)> {
    match (key, machine.node(value)?) {
        (Value::Text(key), Node::Tensor(tensor)) => Some((std::str::from_utf8(key).ok()?.to_owned(), tensor)),
        _ => None,
    }
}
