//! The layering of the crate: which module may import which.
//!
//! A module may import from itself and from the modules in its row of the table. It imports each name from the module
//! that owns it, not from the crate root, whose re-exports are for users.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules from bottom to top, each with the modules it may import. `nn/kernels` counts as a module of its own, so
/// that front ends can use its vector code.
const ALLOWED: [(&str, &[&str]); 26] = [
    ("error", &[]),
    ("assumption", &[]),
    ("check", &["error"]),
    ("files", &["error"]),
    ("random", &[]),
    ("tensor", &[]),
    ("nn/kernels", &[]),
    ("device", &["error", "nn/kernels"]),
    ("labels", &["error", "files"]),
    ("metrics", &["error"]),
    ("audio", &["check", "error", "nn/kernels"]),
    ("frontend", &["check", "error", "nn/kernels"]),
    ("augment", &["check", "error", "random"]),
    ("weights", &["assumption", "check", "error", "files", "random"]),
    ("nn", &["check", "error", "nn/kernels", "tensor", "weights"]),
    ("batch", &["audio", "check", "error"]),
    ("output", &["error", "labels"]),
    ("encoders", &["audio", "batch", "check", "device", "error", "files", "frontend", "nn", "tensor", "weights"]),
    (
        "models",
        &[
            "assumption",
            "audio",
            "batch",
            "check",
            "encoders",
            "error",
            "frontend",
            "labels",
            "nn",
            "output",
            "weights",
        ],
    ),
    ("ctc", &["assumption", "audio", "check", "device", "encoders", "error", "files", "nn", "tensor", "weights"]),
    ("fusion", &["ctc", "error", "output", "tensor"]),
    ("events", &["error", "labels", "output"]),
    (
        "tagger",
        &["assumption", "audio", "device", "encoders", "error", "files", "labels", "models", "output", "weights"],
    ),
    ("windows", &["audio", "check", "device", "error", "frontend", "models", "output", "tagger"]),
    ("names", &["ctc", "error", "events", "frontend", "fusion", "models", "nn", "output", "weights", "windows"]),
    ("stream", &["audio", "check", "error", "frontend", "models", "output", "tagger", "windows"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The module of a file, given its path below `src`.
fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let mut parts = path.iter().map(|part| part.to_str().unwrap());
    match (parts.next().unwrap(), parts.next()) {
        ("nn", Some("kernels")) => "nn/kernels".to_string(),
        (first, _) => first.to_string(),
    }
}

/// The top-level modules that a `use` declaration imports from, with `super` resolved.
fn imports(path: &Path, declaration: &str) -> Vec<String> {
    // The module path of the file itself: `mod.rs` is its folder.
    let mut own: Vec<&str> = path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
    if own.last() == Some(&"mod") {
        own.pop();
    }
    let mut rest = declaration.trim();
    let base: Vec<&str> = if let Some(after) = rest.strip_prefix("crate::") {
        rest = after;
        Vec::new()
    } else if rest.starts_with("super::") {
        while let Some(after) = rest.strip_prefix("super::") {
            own.pop();
            rest = after;
        }
        own
    } else {
        return Vec::new(); // another crate, or the file's own submodule
    };
    let heads: Vec<&str> = match rest.strip_prefix('{') {
        Some(list) if base.is_empty() => top_level(list.trim_end_matches('}')),
        _ => vec![rest],
    };
    let full = |head: &str| {
        let head = head.split("::").map(|part| part.trim_start_matches('{').trim());
        let parts: Vec<&str> = base.iter().copied().chain(head).collect();
        match parts[..] {
            ["nn", "kernels", ..] => "nn/kernels".to_string(),
            _ => parts[0].to_string(),
        }
    };
    heads.into_iter().map(full).collect()
}

/// Splits a list at the commas outside inner braces.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut entries) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                entries.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    entries.push(&list[start..]);
    entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty()).collect()
}

/// The imports of a file, tests excluded: its `use` declarations (inside functions, only those that begin with `crate`)
/// and the paths in its code that begin with `crate`.
fn declarations(text: &str) -> Vec<String> {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].trim_end_matches(' ').rsplit('\n').next().unwrap().trim();
        let indented = code[..at].ends_with(' ') && before.is_empty();
        let end = code[at..].find(';').map_or(code.len(), |end| at + end);
        let declaration = code[at + 4..end].split_whitespace().collect::<Vec<_>>().join(" ");
        if before.is_empty() && !(indented && declaration.starts_with("super::")) || before.starts_with("pub") {
            found.push(declaration);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let path: String = code[at..].chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
        if !code[..at].ends_with("use ") && !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            found.push(path);
        }
    }
    found
}

/// All imports between modules, each with a file that has it.
fn arrows() -> BTreeMap<(String, String), String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "{} files", files.len());
    let mut arrows = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
        // The program is a crate of its own on top of all of them.
        if path == Path::new("lib.rs") || path.starts_with("bin") {
            continue;
        }
        let from = module(path);
        for declaration in declarations(&std::fs::read_to_string(&file).unwrap()) {
            for to in imports(path, &declaration) {
                if to != from {
                    arrows
                        .entry((from.clone(), to))
                        .or_insert_with(|| format!("{}: use {declaration}", path.display()));
                }
            }
        }
    }
    arrows
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let mut wrong = Vec::new();
    for ((from, to), place) in arrows() {
        match table.get(from.as_str()) {
            Some(allowed) if allowed.contains(&to.as_str()) => {}
            Some(_) => wrong.push(format!("{from} -> {to} is not allowed ({place})")),
            None => wrong.push(format!("{from} is not in the table ({place})")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_lists_modules_from_bottom_to_top() {
    let mut below = BTreeSet::new();
    for (module, allowed) in ALLOWED {
        for other in allowed {
            assert!(below.contains(other), "{module} -> {other} imports from above");
        }
        below.insert(module);
    }
}

#[test]
fn every_import_in_the_table_is_used() {
    let arrows = arrows();
    for (module, allowed) in ALLOWED {
        for other in allowed {
            assert!(arrows.contains_key(&(module.to_string(), other.to_string())), "{module} -> {other} is unused");
        }
    }
}

#[test]
fn declarations_are_parsed() {
    let text = "use a::b;\n// use crate::no;\npub use crate::{x, y::{Z, W}};\nuse super::super::q;\n    use super::local;\n\
                fn f() -> crate::m::N {}\n#[cfg(test)]\nmod t { use crate::n; }";
    assert_eq!(declarations(text), ["a::b", "crate::{x, y::{Z, W}}", "super::super::q", "crate::m::N"]);
    let path = Path::new("nn/kernels/conv.rs");
    assert_eq!(imports(path, "crate::{x, y::{Z, W}}"), ["x", "y"]);
    assert_eq!(imports(path, "super::super::Activation"), ["nn"]);
    assert_eq!(imports(path, "super::{map, pool}"), ["nn/kernels"]);
    assert_eq!(imports(Path::new("nn/mod.rs"), "crate::nn::kernels::map"), ["nn/kernels"]);
    assert_eq!(imports(path, "std::fmt"), Vec::<String>::new());
}
