//! Finding the state dict in a checkpoint.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
};

use super::{
    pickle::{Machine, Node, Value},
    torch_names::StoredTensor,
};

/// Keys under which training scripts store the state dict.
const USUAL_KEYS: [&[u8]; 8] =
    [b"state_dict", b"model_state_dict", b"model_state", b"model", b"net", b"network", b"params", b"weights"];
/// Limit on the depth of the state dict in a checkpoint, in keys.
const MAX_DEPTH: usize = 4;
/// Limit on the tensors of a state dict; published ones have a few thousand.
const MAX_TENSORS: usize = 1 << 17;

/// Limit on the length of a name, in bytes. A pickle may refer to the same long text many times.
const MAX_NAME: usize = 1024;
/// Limit on the number of class names.
const MAX_LABELS: usize = 1 << 16;
/// Limit on the attributes and items that are visited in a pickled module.
const MAX_MODULE_STEPS: usize = 1 << 22;
/// Limit on the nesting of modules.
const MAX_MODULE_DEPTH: usize = 64;

/// The tensors of a state dict by name.
type Tensors<'a, 'm> = BTreeMap<String, &'m StoredTensor<'a>>;

/// A dictionary with tensors, or a pickled module.
struct Candidate<'a> {
    map: Value<'a>,
    key: &'a [u8],
    depth: usize,
    /// 0 for a module.
    n_tensors: usize,
}

/// The tensors of the state dict that is `root` or inside it, by the rules in the documentation of the module
/// `weights`. With `part`, those of the outermost one under this key.
pub(super) fn find<'a, 'm>(
    machine: &'m Machine<'a>,
    root: Value<'a>,
    part: Option<&str>,
) -> Result<Tensors<'a, 'm>, String> {
    let usual = |key: &[u8]| USUAL_KEYS.iter().position(|usual| *usual == key);
    let mut candidates = candidates(machine, root);
    if let Some(part) = part {
        candidates.retain(|candidate| candidate.key == part.as_bytes());
        candidates.truncate(1);
    }
    let found = candidates.into_iter().min_by_key(|candidate| {
        let Candidate { key, depth, n_tensors, .. } = *candidate;
        // Of equal candidates the first one is used.
        (usual(key).map_or((usize::MAX, 0), |rank| (depth, rank)), Reverse(n_tensors))
    });
    let found = found.ok_or_else(|| match part {
        Some(part) => format!("expected a dictionary of named tensors under the key `{part}`"),
        None => "no state dict found: expected a dictionary of named tensors".to_string(),
    })?;
    if is_module(machine, found.map) {
        return module_tensors(machine, found.map);
    }
    if found.n_tensors > MAX_TENSORS {
        return Err(format!("expected at most {MAX_TENSORS} tensors, got {}", found.n_tensors));
    }
    let items = machine.items(found.map).unwrap_or_default();
    Ok(items.iter().filter_map(|&item| named_tensor(machine, item)).collect())
}

/// Other information in the top-level dictionary of a checkpoint: the classes that BEATs stores under `label_dict`, a
/// dictionary of names by number, as one text with one name per line.
pub(super) fn metadata(machine: &Machine, root: Value) -> BTreeMap<String, String> {
    let labels = || {
        let is_labels = |(key, _): &&(Value, Value)| matches!(key, Value::Text(b"label_dict"));
        let labels = machine.items(machine.items(root)?.iter().find(is_labels)?.1)?;
        if labels.len() > MAX_LABELS {
            return None;
        }
        let label = |(number, name): &(Value, Value)| match number {
            Value::Int(number) => Some((*number, std::str::from_utf8(name_of(name)?).ok()?.to_owned())),
            _ => None,
        };
        let labels = labels.iter().map(label).collect::<Option<BTreeMap<i64, String>>>()?;
        let is_list = (0..).zip(labels.keys()).all(|(index, &number)| index == number);
        let names: Vec<String> = labels.into_values().collect();
        (is_list && !names.is_empty() && !names.iter().any(|name| name.contains('\n'))).then(|| names.join("\n"))
    };
    labels().map(|labels| ("label_dict".to_owned(), labels)).into_iter().collect()
}

/// All modules, and all dictionaries that contain tensors, outer before inner. The inside of modules is not searched.
fn candidates<'a>(machine: &Machine<'a>, root: Value<'a>) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([(root, &b""[..], 0)]);
    while let Some((map, key, depth)) = queue.pop_front() {
        let (Value::Node(index), Some(Node::Map { items, state })) = (map, machine.node(map)) else { continue };
        if !seen.insert(index) {
            continue;
        }
        if is_module(machine, map) {
            found.push(Candidate { map, key, depth, n_tensors: 0 });
            continue;
        }
        let n_tensors = items.iter().filter(|item| named_tensor(machine, **item).is_some()).count();
        if n_tensors > 0 {
            found.push(Candidate { map, key, depth, n_tensors });
        }
        if depth < MAX_DEPTH {
            let inner = items.iter().filter_map(|(key, value)| {
                let key = name_of(key).filter(|key| !is_training_state(key))?;
                Some((*value, key, depth + 1))
            });
            queue.extend(inner.chain([(*state, key, depth + 1)]));
        }
    }
    found
}

/// Whether a key names the state of an optimiser or scheduler, whose tensors have the same shapes as the model's.
fn is_training_state(key: &[u8]) -> bool {
    let key = key.to_ascii_lowercase();
    [&b"optim"[..], b"sched"].iter().any(|part| key.windows(part.len()).any(|window| window == *part))
}

fn named_tensor<'a, 'm>(
    machine: &'m Machine<'a>,
    (key, value): (Value<'a>, Value<'a>),
) -> Option<(String, &'m StoredTensor<'a>)> {
    match machine.node(value)? {
        Node::Tensor(tensor) => Some((std::str::from_utf8(name_of(&key)?).ok()?.to_owned(), tensor)),
        _ => None,
    }
}

/// The attribute `name` of a pickled object.
fn attribute<'a>(machine: &Machine<'a>, object: Value<'a>, name: &[u8]) -> Option<Value<'a>> {
    let Node::Map { state, .. } = machine.node(object)? else { return None };
    let mut attributes = machine.items(*state)?.iter();
    attributes.find(|(key, _)| matches!(key, Value::Text(key) if *key == name)).map(|(_, value)| *value)
}

fn is_module(machine: &Machine, object: Value) -> bool {
    [&b"_parameters"[..], b"_modules"].iter().all(|name| attribute(machine, object, name).is_some())
}

/// The tensors that `state_dict()` of a pickled module would return: parameters and persistent buffers, including inner
/// modules.
fn module_tensors<'a, 'm>(machine: &'m Machine<'a>, module: Value<'a>) -> Result<Tensors<'a, 'm>, String> {
    let items = |module, name: &[u8]| {
        attribute(machine, module, name).and_then(|value| machine.items(value)).unwrap_or_default()
    };
    let mut tensors = BTreeMap::new();
    let mut queue = vec![(module, String::new(), 0)];
    let mut n_steps = 0;
    while let Some((module, prefix, depth)) = queue.pop() {
        let transient = attribute(machine, module, b"_non_persistent_buffers_set");
        let transient: HashSet<&[u8]> =
            transient.and_then(|set| machine.sequence(set)).unwrap_or_default().iter().filter_map(name_of).collect();
        let (parameters, buffers) = (items(module, b"_parameters"), items(module, b"_buffers"));
        n_steps += transient.len() + parameters.len() + buffers.len();
        let persistent = buffers.iter().filter(|(name, _)| name_of(name).is_some_and(|name| !transient.contains(name)));
        for &item in parameters.iter().chain(persistent) {
            if let Some((name, tensor)) = named_tensor(machine, item) {
                tensors.insert(format!("{prefix}{name}"), tensor);
            }
        }
        for (name, inner) in items(module, b"_modules") {
            n_steps += 1 + n_attributes(machine, *inner);
            if let (Some(name), true) = (name_of(name), is_module(machine, *inner)) {
                queue.push((*inner, format!("{prefix}{}.", String::from_utf8_lossy(name)), depth + 1));
            }
            // Modules may share inner modules, so a hostile file can make their number grow exponentially, or make them
            // recursive.
            let names = queue.last().map_or(0, |(_, prefix, _)| prefix.len());
            if n_steps > MAX_MODULE_STEPS || queue.len() > MAX_TENSORS || names > MAX_NAME || depth > MAX_MODULE_DEPTH {
                return Err("the pickled module is too large or too deep".to_owned());
            }
        }
        if tensors.len() > MAX_TENSORS {
            return Err(format!("expected at most {MAX_TENSORS} tensors"));
        }
    }
    Ok(tensors)
}

fn n_attributes(machine: &Machine, object: Value) -> usize {
    match machine.node(object) {
        Some(Node::Map { state, .. }) => machine.items(*state).unwrap_or_default().len(),
        _ => 0,
    }
}

/// The text of a value, if it has at most [`MAX_NAME`] bytes.
fn name_of<'a>(value: &Value<'a>) -> Option<&'a [u8]> {
    match value {
        Value::Text(text) if text.len() <= MAX_NAME => Some(text),
        _ => None,
    }
}
